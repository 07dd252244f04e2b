-- Lets a delivery wait, out of flight, for some time.
--
-- KEYS  1 in flight  hash: token -> held message (take.lua)
--       2 delayed    sorted set: id -> when it is due, ms of the server's clock
--       3 late       hash: id -> held message
-- ARGV  1 token  2 id  3 how long it waits, in ms
--
-- What is not in flight is passed over. A full server lets it be done (take.lua).

redis.call('HDEL', KEYS[1], '')
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[3], ARGV[2], held)
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[3])), ARGV[2])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
