-- Claims entries again for a consumer that still holds them, which sets their idle time to 0 and counts no attempt.
-- KEYS: stream. ARGV: group, consumer, entries. Answers the entries that are still the consumer's.
local ours = {}
for n = 3, #ARGV do
    if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[n], ARGV[n], 1, ARGV[2]) > 0 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[n], 'JUSTID')
        ours[#ours + 1] = ARGV[n]
    end
end
return ours
