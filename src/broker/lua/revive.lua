-- Puts a dead letter's job back on its stream: exactly once, since both or neither happens and nobody comes in between.
-- KEYS: dead letters, stream. ARGV: dead entry, job, the job for its group only, channel ('' for none).
-- Answers the new entry's id, or nil if there is no such dead letter any more.
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return false end
local groups = redis.call('EXISTS', KEYS[2]) == 1 and #redis.call('XINFO', 'GROUPS', KEYS[2]) or 0
local entry = redis.call('XADD', KEYS[2], '*', 'json', groups > 1 and ARGV[3] or ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[1])
if ARGV[4] ~= '' then redis.pcall('PUBLISH', ARGV[4], KEYS[2]) end
return entry
