-- KEYS[i]          celery-task-meta-<task id>, which is also the channel's name
-- ARGV[3i - 2]     the value to keep
-- ARGV[3i - 1]     the seconds after which it expires; 0: never
-- ARGV[3i]         SHA-1 of the value that it may replace; empty: none
--
-- Writes and publishes each value if its key is absent, or has the value that may be
-- replaced. Returns nothing for each key that was written, or a list with the server's
-- words where it was written and may not be published; else the key's value, or the
-- server's refusal. Values are not decoded here: they may be in any of Celery's
-- serializers, and compressed.
local function write(key, value, ttl)
    local answer
    if ttl == '0' then
        answer = redis.pcall('SET', key, value)
    else
        answer = redis.pcall('SETEX', key, ttl, value)
    end
    if answer.err then
        return answer
    end
    local heard = redis.pcall('PUBLISH', key, value)
    return type(heard) == 'table' and {heard.err}
end

local kept = {}
for i, key in ipairs(KEYS) do
    local value, ttl, old = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    local found = redis.pcall('GET', key)
    local is_other = type(found) == 'string' and redis.sha1hex(found) ~= old
    if type(found) == 'table' or is_other then
        kept[i] = found
    else
        kept[i] = write(key, value, ttl)
    end
end
return kept
