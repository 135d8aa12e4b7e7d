-- Puts a delivered job aside until it is due again, and acknowledges it: both or neither, and only if it is still ours.
-- KEYS: stream, its delayed jobs, its cancelled jobs. ARGV: group, consumer, entry, number of its delivery, wait in ms, job, the job
-- for this group only, channel to tell of it, id of the job. Answers when it is due in ms since 1970, 0 if it is cancelled, or nil
-- if somebody else has taken it over.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if not held or held[4] ~= tonumber(ARGV[4]) then return false end
if redis.call('HEXISTS', KEYS[3], ARGV[9]) == 1 then return 0 end
local now = redis.call('TIME')
local due = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[5]
local groups = #redis.call('XINFO', 'GROUPS', KEYS[1])
redis.call('ZADD', KEYS[2], string.format('%.0f', due), groups > 1 and ARGV[7] or ARGV[6])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.pcall('PUBLISH', ARGV[8], KEYS[1])
return due
