-- Reads an entry again that is still a consumer's; counts no delivery.
-- KEYS: stream. ARGV: group, consumer, entry, number of its delivery. Answers as XCLAIM does, or nil if it is not ours any more.
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if not held or held[4] ~= tonumber(ARGV[4]) then return false end
return redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[4])
