-- Begins a worker's lease, or makes it longer: see stay.lua.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
--       2 lengths  hash: worker -> length of its lease, ms
--       3 queues   hash: worker -> the queues that it takes from, in JSON, for people
-- ARGV  1 worker  2 lease in ms  3 its queues

redis.call('ZADD', KEYS[1], server_time() + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
