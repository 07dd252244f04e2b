-- Removes dead letters.
--
-- KEYS  1 dead      hash: id -> JSON record
--       2 messages  hash: id -> held message (prelude.lua)
-- ARGV  ids
--
-- Returns the number of those that were there.

redis.call('HDEL', KEYS[1], unpack(ARGV))
return redis.call('HDEL', KEYS[2], unpack(ARGV))
