-- Moves a delivery to the dead-letter queue.
--
-- KEYS  1 in flight   hash: token -> held message (take.lua)
--       2 dead        hash: id -> JSON record of how it came to that
--       3 messages    hash: id -> held message
--       4 serial      the last id
--       5 deliveries  hash: SHA-1 of a message -> how often a worker died with it
-- ARGV  1 token  2 record  3 SHA-1 of the message
--
-- What is not in flight is passed over. A full server lets it be done (take.lua).

redis.call('HDEL', KEYS[1], '')
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local id = redis.call('INCR', KEYS[4])
  redis.call('HSET', KEYS[3], id, held)
  redis.call('HSET', KEYS[2], id, ARGV[2])
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[5], ARGV[3])
end
