-- Puts deliveries back to the front of their lists, in the order they were taken in.
--
-- KEYS  1 in flight  hash: token -> held message (take.lua)
-- ARGV  tokens
--
-- What is not in flight is passed over.

local back = {}
for _, token in ipairs(ARGV) do
  local held = redis.call('HGET', KEYS[1], token)
  if held then
    local serial, size, at = held:match('^(%d+):(%d+):()')
    back[#back + 1] = {
      serial = tonumber(serial),
      token = token,
      list = held:sub(at, at + size - 1),
      message = held:sub(at + size),
    }
  end
end
table.sort(back, function(one, other) return one.serial > other.serial end)
for _, one in ipairs(back) do
  redis.call('RPUSH', one.list, one.message)
  redis.call('HDEL', KEYS[1], one.token)
end
