-- Moves a delivery to the dead-letter queue.
--
-- KEYS  1 in flight   hash: token -> held message (take.lua)
--       2 dead        list of JSON records, the newest first
--       3 deliveries  hash: SHA-1 of a message -> how often a worker died with it
-- ARGV  1 token  2 record  3 SHA-1 of the message
--
-- What is not in flight is passed over.

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('LPUSH', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[3])
end
