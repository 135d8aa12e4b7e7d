-- Marks a job that is between two keys as cancelled, unless it is marked: whoever takes it drops it.
-- KEYS: cancelled jobs of its stream. ARGV: id of the job, time to live of the mark in ms.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then redis.call('HSET', KEYS[1], ARGV[1], 'untold') end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
