-- KEYS[i]          celery-task-meta-<task id>, which is also the channel's name
-- ARGV[3i - 2]     the value to keep
-- ARGV[3i - 1]     the seconds after which it expires; 0: never
-- ARGV[3i]         SHA-1 of the value that it may replace; empty: none
--
-- Writes and publishes each value if its key is absent, or has the value that may be
-- replaced. Returns nothing for each key that was written, else the key's value. Values
-- are not decoded here: they may be in any of Celery's serializers, and compressed.
local kept = {}
for i, key in ipairs(KEYS) do
    local value, ttl, old = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    local found = redis.call('GET', key)
    if found and redis.sha1hex(found) ~= old then
        kept[i] = found
    else
        kept[i] = false
        if ttl == '0' then
            redis.call('SET', key, value)
        else
            redis.call('SETEX', key, ttl, value)
        end
        redis.call('PUBLISH', key, value)
    end
end
return kept
