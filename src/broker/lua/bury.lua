-- Copies a delivered entry to the dead letters, answers whoever waits, and acknowledges it: all or nothing, and only if it
-- is still ours. KEYS: stream, its dead letters, result list (the stream's key if nobody waits).
-- ARGV: group, consumer, entry, result ('' if nobody waits), its time to live in s, fields and values of the copy.
-- Answers 1, or 0 if somebody else has taken it over.
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 6))
if ARGV[4] ~= '' then
    -- A result key that holds something else holds nobody up.
    if type(redis.pcall('LPUSH', KEYS[3], ARGV[4])) == 'number' then redis.call('EXPIRE', KEYS[3], ARGV[5]) end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return 1
