-- Searches a part of a stream for entries that contain a text.
-- KEYS: stream. ARGV: text, id to begin with as XRANGE takes it, most entries to look at.
-- Answers how many were looked at, the last of them ('' if none), and pairs of an entry and its job.
local found, last = {}, ''
local entries = redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[3])
for _, entry in ipairs(entries) do
    last = entry[1]
    for n = 1, #entry[2], 2 do
        if entry[2][n] == 'json' and entry[2][n + 1]:find(ARGV[1], 1, true) then
            found[#found + 1] = {entry[1], entry[2][n + 1]}
        end
    end
end
return {#entries, last, found}
