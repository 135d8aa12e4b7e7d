-- Copies a delivered entry to the dead letters, answers whoever waits, and acknowledges it: all or nothing, and only if it
-- is still ours. KEYS: stream, its dead letters, result list (the stream's key if nobody waits).
-- ARGV: group, consumer, entry, number of its delivery, result ('' if nobody waits), its time to live in s, fields and values of the copy.
-- Answers 1, or 0 if somebody else has taken it over.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if not held or held[4] ~= tonumber(ARGV[4]) then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 7))
if ARGV[5] ~= '' then
    -- A result key that holds something else holds nobody up.
    if type(redis.pcall('LPUSH', KEYS[3], ARGV[5])) == 'number' then redis.call('EXPIRE', KEYS[3], ARGV[6]) end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return 1
