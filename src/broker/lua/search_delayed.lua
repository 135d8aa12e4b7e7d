-- Searches a part of the delayed jobs of a stream for those that contain a text.
-- KEYS: delayed jobs. ARGV: text, number of the first to look at, most to look at.
-- Answers how many were looked at, and pairs of a job and when it is due in ms since 1970.
local found = {}
local jobs = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[2] + ARGV[3] - 1, 'WITHSCORES')
for n = 1, #jobs, 2 do
    if jobs[n]:find(ARGV[1], 1, true) then found[#found + 1] = {jobs[n], string.format('%.0f', jobs[n + 1])} end
end
return {#jobs / 2, found}
