-- Writes the canary and the sign that an autoscaler runs. Both are tried before any other write, because Redis refuses a
-- write for lack of memory only if it is the first one of a script. Returns whether the canary was tried (1 or 0), the
-- value that it had before, and why Redis refused it or the sign ('' if it did not).
local function write_signs(canary, alive, leads, at, instance, since, canary_ttl, alive_ttl)
    local tried, before, refused = 0, false, ''
    local function attempt(...)
        local reply = redis.pcall(...)
        if type(reply) ~= 'table' or not reply.err then return reply end
        -- Before Redis 7 the error is quoted in one of the script.
        if refused == '' then refused = reply.err:match('%-(%u+ .*)$') or reply.err end
        return nil
    end
    if leads then
        tried = 1
        local fields = attempt('HMGET', canary, 'at')
        before = fields and fields[1] or false
        if attempt('HSET', canary, 'at', at, 'instance', instance, 'unbroken_since', since) then
            attempt('PEXPIRE', canary, canary_ttl)
        end
    end
    attempt('SET', alive, instance, 'PX', alive_ttl)
    return tried, before, refused
end
