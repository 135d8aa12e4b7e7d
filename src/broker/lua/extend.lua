-- Claims entries again for a consumer that still holds them, which sets their idle time to 0 and counts no delivery.
-- KEYS: stream. ARGV: group, consumer, then for each entry its id and the number of its delivery.
-- Answers the entries that are still the consumer's.
local ours = {}
for n = 3, #ARGV, 2 do
    local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[n], ARGV[n], 1, ARGV[2])[1]
    if held and held[4] == tonumber(ARGV[n + 1]) then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[n], 'JUSTID')
        ours[#ours + 1] = ARGV[n]
    end
end
return ours
