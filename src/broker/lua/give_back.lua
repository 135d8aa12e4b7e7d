-- Puts a delivered job that was not begun behind the others on its stream, for whoever has time, and acknowledges it: both or
-- neither, and only if it is still ours.
-- KEYS: stream. ARGV: group, consumer, entry, number of its delivery, job, the job for this group only, channel ('' for none).
-- Answers 1, or 0 if somebody else has taken it over.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if not held or held[4] ~= tonumber(ARGV[4]) then return 0 end
local groups = #redis.call('XINFO', 'GROUPS', KEYS[1])
redis.call('XADD', KEYS[1], '*', 'json', groups > 1 and ARGV[6] or ARGV[5])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if ARGV[7] ~= '' then redis.pcall('PUBLISH', ARGV[7], KEYS[1]) end
return 1
