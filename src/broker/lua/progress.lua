-- Writes the progress of a job that is still the consumer's.
-- KEYS: stream, the job's progress. ARGV: group, consumer, entry, number of its delivery, TTL in ms, then names and values of
-- fields. Answers 1, or 0 if the job is not the consumer's any more.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if not held or held[4] ~= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 6))
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 1
