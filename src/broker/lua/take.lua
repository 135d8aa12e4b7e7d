-- Takes new entries from several streams, which have the turn in this order: as evenly as it goes, and never more than asked
-- for. A COUNT of one read would hold for each stream by itself.
-- KEYS: streams. ARGV: group, consumer, most entries.
-- Answers pairs of a stream's number and its entries, or of its number and why it can't be read.
local left = tonumber(ARGV[3])
local found, more = {}, {}
local function take(n, count)
    local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[n], '>')
    if not reply then return 0 end
    if reply.err then
        found[#found + 1] = {n, reply.err}
        return 0
    end
    local entries = reply[1][2]
    found[#found + 1] = {n, entries}
    left = left - #entries
    return #entries
end
for n = 1, #KEYS do
    if left == 0 then break end
    local share = math.max(math.floor(left / (#KEYS - n + 1)), 1)
    if take(n, share) == share then more[#more + 1] = n end
end
-- What some have not used goes to those that have more.
for _, n in ipairs(more) do
    if left == 0 then break end
    take(n, left)
end
return found
