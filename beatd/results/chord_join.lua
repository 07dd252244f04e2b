-- KEYS[1]  celery-taskset-meta-<group>.j   what was counted: a sorted set, or a list
-- KEYS[2]  .t   how many calls were added to the header while it ran
-- KEYS[3]  .s   how many calls the header has
-- KEYS[4]  .d   <task id>:<index> of what was counted
-- KEYS[5]       no suffix: the header's shape, where it is not flat
-- KEYS[6]  .c   the claim of the worker that sends the body; `done` when it is sent
-- ARGV     task id, value, index, `set` or `list`,
--          seconds after which the first four keys expire, and the fifth; 0: unchanged,
--          our claim, the seconds after which it expires
--
-- Counts a value, once for each member of .d. If that completes the header and nobody
-- else has the claim, takes the claim and returns the shape and all values; if not,
-- returns nothing. With a claim that is ours already it returns the same again, so an
-- answer may be lost. Keys and values are in Celery's form: its workers count in the
-- same chord.
local counted, added, size, known, shape, claim = unpack(KEYS)
local task_id, value, index, form, seconds, shape_seconds, ours, holds = unpack(ARGV)

local holder = redis.call('GET', claim)
if holder == 'done' then
    return false
end
if redis.call('SADD', known, task_id .. ':' .. index) == 1 then
    if form == 'set' then
        redis.call('ZADD', counted, index, value)
    else
        redis.call('RPUSH', counted, value)
    end
end
if seconds ~= '0' then
    for _, key in ipairs({counted, added, size, known}) do
        redis.call('EXPIRE', key, seconds)
    end
end
if shape_seconds ~= '0' then
    redis.call('EXPIRE', shape, shape_seconds)
end

local number = redis.call(form == 'set' and 'ZCARD' or 'LLEN', counted)
local wanted = tonumber(redis.call('GET', size))
local more = tonumber(redis.call('GET', added)) or 0
if not wanted or number ~= wanted + more then
    return false
end
if holder and holder ~= ours then
    return false
end
redis.call('SET', claim, ours, 'EX', holds)
return {
    redis.call('GET', shape),
    redis.call(form == 'set' and 'ZRANGE' or 'LRANGE', counted, 0, -1),
}
