-- Begins a worker's lease, or makes it longer: see stay.lua.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
--       2 lengths  hash: worker -> length of its lease, ms
-- ARGV  1 worker  2 lease in ms

redis.call('ZADD', KEYS[1], server_time() + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
