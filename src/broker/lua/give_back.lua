-- Puts a delivered job that was not begun behind the others on its stream, for whoever has time, and acknowledges it: both or
-- neither, and only if it is still ours.
-- KEYS: stream. ARGV: group, consumer, entry, job, the job for this group only, channel ('' for none).
-- Answers 1, or 0 if somebody else has taken it over.
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then return 0 end
local groups = #redis.call('XINFO', 'GROUPS', KEYS[1])
redis.call('XADD', KEYS[1], '*', 'json', groups > 1 and ARGV[5] or ARGV[4])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if ARGV[6] ~= '' then redis.pcall('PUBLISH', ARGV[6], KEYS[1]) end
return 1
