-- Publishes a job that has an idempotency key, a delay, or both.
-- KEYS: stream, where it waits until it is due, its idempotency key (the stream's key for those that it has not).
-- ARGV: job, its id, when it is due in ms since 1970 ('' for now), the window in ms ('' for no key), channel.
-- Answers {'first', id} of the job that was published under the key before, {'entry', id} or {'due', ms}.
if ARGV[4] ~= '' then
    local first = redis.call('GET', KEYS[3])
    if first then return {'first', first} end
end
local placed
local now = redis.call('TIME')
if ARGV[3] ~= '' and tonumber(ARGV[3]) > now[1] * 1000 + math.floor(now[2] / 1000) then
    redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
    redis.pcall('PUBLISH', ARGV[5], KEYS[1])
    placed = {'due', ARGV[3]}
else
    placed = {'entry', redis.call('XADD', KEYS[1], '*', 'json', ARGV[1])}
end
if ARGV[4] ~= '' then redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[4]) end
return placed
