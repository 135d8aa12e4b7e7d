-- Puts jobs that are due on their stream, by the server's clock: however many do so, each job is put there once.
-- KEYS: delayed jobs, stream. ARGV: most jobs to move, channel that is told ('' for none).
-- Answers how many were moved, how many are left, and in how many ms the first of those is due (-1 if there is none).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
for _, job in ipairs(due) do
    redis.call('XADD', KEYS[2], '*', 'json', job)
    redis.call('ZREM', KEYS[1], job)
end
if #due > 0 and ARGV[2] ~= '' then redis.pcall('PUBLISH', ARGV[2], KEYS[2]) end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #first == 0 then return {#due, 0, -1} end
local wait = math.min(math.max(math.ceil(tonumber(first[2]) - now), 0), 86400000)
return {#due, redis.call('ZCARD', KEYS[1]), wait}
