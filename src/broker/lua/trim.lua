-- Trims a stream of entries that every group has had delivered and acknowledged; without a group, of nothing.
-- KEYS: stream. ARGV: most entries to trim. Answers how many were trimmed.

-- Ids are two numbers of up to 20 digits, too large for Lua's: of two without leading zeros the longer one is larger.
local function less(a, b)
    local a1, a2 = a:match('^(%d+)-(%d+)$')
    local b1, b2 = b:match('^(%d+)-(%d+)$')
    if a1 ~= b1 then
        if #a1 ~= #b1 then return #a1 < #b1 end
        return a1 < b1
    end
    if #a2 ~= #b2 then return #a2 < #b2 end
    return a2 < b2
end

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local keep = nil
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local of = {}
    for n = 1, #group, 2 do of[group[n]] = group[n + 1] end
    local first = of['last-delivered-id']
    if of['pending'] > 0 then first = redis.call('XPENDING', KEYS[1], of['name'], '-', '+', 1)[1][1] end
    if not keep or less(first, keep) then keep = first end
end
if not keep then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', keep, 'LIMIT', ARGV[1])
