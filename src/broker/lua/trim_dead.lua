-- Drops the oldest dead letters of a stream.
-- KEYS: dead letters. ARGV: how many are kept (0: all), for how many ms they are kept (0: for ever). Answers how many were dropped.
local dropped = 0
if tonumber(ARGV[1]) > 0 then dropped = redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', ARGV[1]) end
if tonumber(ARGV[2]) > 0 then
    local time = redis.call('TIME')
    local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[2]
    if oldest > 0 then dropped = dropped + redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f', oldest)) end
end
return dropped
