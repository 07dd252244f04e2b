-- Puts dead letters back at the ends of their lists.
--
-- KEYS  1 dead      hash: id -> JSON record
--       2 messages  hash: id -> held message (take.lua)
-- ARGV  ids
--
-- Gives the number of those that were there. A full server lets it be done (take.lua).

redis.call('HDEL', KEYS[2], '')
local found = 0
for _, id in ipairs(ARGV) do
  local held = redis.call('HGET', KEYS[2], id)
  if held then
    local size, at = held:match('^%d+:(%d+):()')
    redis.call('LPUSH', held:sub(at, at + size - 1), held:sub(at + size))
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[1], id)
    found = found + 1
  end
end
return found
