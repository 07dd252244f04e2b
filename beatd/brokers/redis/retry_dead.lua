-- Puts dead letters back at the ends of their lists.
--
-- KEYS  1 dead      hash: id -> JSON record
--       2 messages  hash: id -> held message (prelude.lua)
-- ARGV  ids
--
-- Returns the number of those that were there; what is no held message stays there. A full server lets the script run.

pass_when_full(KEYS[2])
local found = 0
for _, id in ipairs(ARGV) do
  local held = redis.call('HGET', KEYS[2], id)
  if held and held:match('^%d+:%d+:') then
    redis.call('LPUSH', released(held))
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[1], id)
    found = found + 1
  end
end
return found
