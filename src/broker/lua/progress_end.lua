-- Removes the progress of a job that has ended, unless another worker has written it. KEYS: the job's progress. ARGV: worker.
if redis.call('HGET', KEYS[1], 'worker') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
