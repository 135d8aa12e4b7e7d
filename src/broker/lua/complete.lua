-- Acknowledges entries that are still the consumer's, and pushes their results to whoever waits.
-- KEYS: stream, then a result list for each entry that somebody waits for.
-- ARGV: group, consumer, the lowest and the highest of the entries, then for each entry: its id, the number of its delivery,
-- its result ('' if nobody waits), and for how many seconds the result is kept.
-- Answers pairs of an entry's number and why it was not acknowledged: '' if it is not the consumer's any more.
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local count = (#ARGV - 4) / 4
local asked, held = 2 * count + 16, {}
local rows = redis.call('XPENDING', stream, group, ARGV[3], ARGV[4], asked, consumer)
for n = 1, #rows do held[rows[n][1]] = rows[n][4] end
local cut = #rows == asked
local problems, done, list = {}, {}, 1
for n = 5, #ARGV, 4 do
    local entry, result, refused = ARGV[n], ARGV[n + 2], nil
    if result ~= '' then list = list + 1 end
    local delivery = held[entry]
    if cut and not delivery then
        local row = redis.call('XPENDING', stream, group, entry, entry, 1, consumer)[1]
        delivery = row and row[4]
    end
    if delivery ~= tonumber(ARGV[n + 1]) then
        refused = ''
    elseif result ~= '' then
        local pushed = redis.pcall('LPUSH', KEYS[list], result)
        if type(pushed) == 'number' then
            redis.call('EXPIRE', KEYS[list], ARGV[n + 3])
        else
            refused = pushed.err
        end
    end
    if refused then problems[#problems + 1] = {(n - 5) / 4, refused} end
    -- A result key that holds something else holds nobody up.
    if not refused or refused:find('WRONGTYPE', 1, true) then
        done[#done + 1] = entry
    end
end
if #done > 0 then redis.call('XACK', stream, group, unpack(done)) end
return problems
