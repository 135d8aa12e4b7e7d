-- Writes a heartbeat of a worker, and reports what there is to do on its queues. On one server only: the keys lie in
-- different slots.
-- KEYS: control key, heartbeat, history; then for each queue the stream and its delayed jobs.
-- ARGV: TTL of the heartbeat in ms, entries of the history, channel to publish the message on ('' for none),
-- message, group, consumer, idle time in ms of a job that nobody renews, number of arguments that are fields and
-- values, these; then for each queue the number of its jobs that the worker runs.
-- Returns the value of the control key, the number of fields that the heartbeat did not have before, and for each
-- queue whether jobs may be lost (1 or 0) and in how many ms a delayed job is due (-1 if there is none, 0 if that is
-- unknown).
local asked = redis.call('GET', KEYS[1])
local fields = {}
for n = 1, tonumber(ARGV[8]) do fields[n] = ARGV[8 + n] end
local new = redis.call('HSET', KEYS[2], unpack(fields))
redis.call('PEXPIRE', KEYS[2], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', unpack(fields))
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], ARGV[4]) end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local queues = {}
for n = 0, (#KEYS - 3) / 2 - 1 do
    local stream, delayed = KEYS[4 + 2 * n], KEYS[5 + 2 * n]
    local running = tonumber(ARGV[9 + #fields + n])
    local own = redis.pcall('XPENDING', stream, ARGV[5], '-', '+', running + 1, ARGV[6])
    local idle = redis.pcall('XPENDING', stream, ARGV[5], 'IDLE', ARGV[7], '-', '+', 1)
    local lost = own.err or idle.err or #own > running or #idle > 0
    local first = redis.pcall('ZRANGE', delayed, 0, 0, 'WITHSCORES')
    local wait = -1
    if first.err then
        wait = 0
    elseif #first > 0 then
        wait = math.min(math.max(math.ceil(tonumber(first[2]) - now), 0), 86400000)
    end
    queues[#queues + 1] = lost and 1 or 0
    queues[#queues + 1] = wait
end
return {asked, new, queues}
