-- Cancels a job: removes it from the delayed jobs, or marks it so that whoever takes it drops it.
-- KEYS: stream, its delayed jobs, its cancelled jobs, result list (the stream's key if nobody waits, or if it is on another
-- node). ARGV: group, id of the job, its entry ('' for a delayed job), the job as it is among the delayed ones, error for whoever
-- waits ('' for nobody), its time to live in s, time to live of the mark in ms.
-- Answers {'delayed'}, {'waiting'}, {'running', consumer}, {'already', consumer or ''}, or {'gone'}.
local function answer()
    -- A result key that holds something else holds nobody up.
    if ARGV[5] ~= '' and type(redis.pcall('LPUSH', KEYS[4], ARGV[5])) == 'number' then
        redis.call('EXPIRE', KEYS[4], ARGV[6])
    end
end

local entry = ARGV[3]
if entry == '' then
    if redis.call('ZREM', KEYS[2], ARGV[4]) == 0 then return {'gone'} end
    -- It may have been cancelled and given back in the same moment.
    if redis.call('HGET', KEYS[3], ARGV[2]) ~= 'told' then answer() end
    redis.call('HDEL', KEYS[3], ARGV[2])
    return {'delayed'}
end
if #redis.call('XRANGE', KEYS[1], entry, entry) == 0 then return {'gone'} end
local waits = true
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local of = {}
    for n = 1, #group, 2 do of[group[n]] = group[n + 1] end
    -- The range from the last delivered entry to this one is empty if this one was delivered.
    if of['name'] == ARGV[1] then
        waits = #redis.call('XRANGE', KEYS[1], '(' .. of['last-delivered-id'], entry, 'COUNT', 1) > 0
    end
end
local holder = not waits and redis.call('XPENDING', KEYS[1], ARGV[1], entry, entry, 1)[1]
if not waits and not holder then return {'gone'} end
local mark = redis.call('HGET', KEYS[3], ARGV[2])
if mark and (holder or mark == 'told') then
    if holder then redis.call('HSET', KEYS[3], '@' .. entry, ARGV[2]) end
    return {'already', holder and holder[2] or ''}
end
if waits then
    redis.call('HSET', KEYS[3], ARGV[2], 'told')
    answer()
else
    redis.call('HSET', KEYS[3], ARGV[2], 'untold', '@' .. entry, ARGV[2])
end
redis.call('PEXPIRE', KEYS[3], ARGV[7])
if waits then return {'waiting'} end
return {'running', holder[2]}
