-- Notes that an admitted session is open now, or was not opened: it counts only while it is open.
-- KEYS openers. ARGV session, value of its admission, value from now on.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
