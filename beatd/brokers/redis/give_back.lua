-- Puts deliveries back to the front of their lists, the first one foremost.
--
-- KEYS  1 in flight  hash: token -> held message (take.lua)
-- ARGV  tokens
--
-- What is not in flight is passed over. A full server lets it be done (take.lua).

redis.call('HDEL', KEYS[1], '')
for index = #ARGV, 1, -1 do
  local held = redis.call('HGET', KEYS[1], ARGV[index])
  if held then
    local size, at = held:match('^%d+:(%d+):()')
    redis.call('RPUSH', held:sub(at, at + size - 1), held:sub(at + size))
    redis.call('HDEL', KEYS[1], ARGV[index])
  end
end
