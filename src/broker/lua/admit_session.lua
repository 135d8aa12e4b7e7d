-- Notes that somebody is going to open a session, unless they or the group have as many open as they may.
-- KEYS openers. ARGV session, opener, until when it is open or is not opened any more (ms), prefix of the group, maximum
-- of an opener, maximum of the group (0: unlimited), then pairs of sessions that are closed and their values.
-- Returns 'admitted' and the session's value, or whose limit is reached.
local function opener_of(value)
  return string.match(value, '^(.*) %d+$')
end
for i = 7, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
local opener = ARGV[2]
local present = redis.call('HGET', KEYS[1], ARGV[1])
if present then
  opener = opener_of(present)
else
  local of_opener, of_group = 0, 0
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if opener_of(all[i + 1]) == opener then of_opener = of_opener + 1 end
    if string.sub(all[i], 1, #ARGV[4]) == ARGV[4] then of_group = of_group + 1 end
  end
  local max_of_opener, max_of_group = tonumber(ARGV[5]), tonumber(ARGV[6])
  if max_of_opener > 0 and of_opener >= max_of_opener then return {'opener', ''} end
  if max_of_group > 0 and of_group >= max_of_group then return {'group', ''} end
end
local value = opener .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], value)
return {'admitted', value}
