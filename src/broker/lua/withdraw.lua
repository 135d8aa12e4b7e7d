-- Acknowledges a cancelled job, tells whoever waits unless that was done, and removes the mark: all or nothing, and only if the
-- entry is still ours.
-- KEYS: stream, its cancelled jobs, result list (the stream's key if nobody waits, or if it is on another node).
-- ARGV: group, consumer, entry, number of its delivery, id of the job, error for whoever waits ('' for nobody), its time to live
-- in s. Answers 'lost' if somebody else has taken the entry over, 'told' if whoever waits knew, else 'untold'.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if not held or held[4] ~= tonumber(ARGV[4]) then return 'lost' end
local mark = redis.call('HGET', KEYS[2], ARGV[5]) or 'untold'
if mark == 'untold' and ARGV[6] ~= '' then
    -- A result key that holds something else holds nobody up.
    if type(redis.pcall('LPUSH', KEYS[3], ARGV[6])) == 'number' then redis.call('EXPIRE', KEYS[3], ARGV[7]) end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[2], '@' .. ARGV[3])
-- Other groups take the job too.
if #redis.call('XINFO', 'GROUPS', KEYS[1]) > 1 then
    redis.call('HSET', KEYS[2], ARGV[5], 'told')
else
    redis.call('HDEL', KEYS[2], ARGV[5])
end
return mark
