-- Lets a delivery wait, out of flight, until an instant.
--
-- KEYS  1 in flight  hash: token -> held message (take.lua)
--       2 delayed    sorted set: id -> when it is due, ms
--       3 late       hash: id -> held message
-- ARGV  1 token  2 id  3 when it is due, ms
--
-- What is not in flight is passed over.

local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  redis.call('HSET', KEYS[3], ARGV[2], held)
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
