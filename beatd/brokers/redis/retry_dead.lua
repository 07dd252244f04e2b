-- Puts dead letters back at the ends of their lists.
--
-- KEYS  1 dead      hash: id -> JSON record
--       2 messages  hash: id -> held message (prelude.lua)
-- ARGV  ids
--
-- Returns the number of those that were put back; then the id of each that stays, and why:
-- its list refuses it, or it is no held message. A full server lets the script run.

pass_when_full(KEYS[2])
local answer = {0}
for _, id in ipairs(ARGV) do
  local held = redis.call('HGET', KEYS[2], id)
  local list, message
  if held then
    list, message = released(held)
  end
  if list then -- as `as_new` in base.py
    message = message:gsub('"beatd_requeues": %d+', '"beatd_requeues": 0', 1)
  end
  local pushed = list and redis.pcall('LPUSH', list, message)
  if type(pushed) == 'number' then
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[1], id)
    answer[1] = answer[1] + 1
  elseif held then
    answer[#answer + 1] = id
    answer[#answer + 1] = pushed and pushed.err or 'it is no message that beatd kept'
  end
end
return answer
