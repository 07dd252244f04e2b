-- Makes a worker's lease longer, if nobody has ended it.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
--       2 lengths  hash: worker -> length of its lease, ms
-- ARGV  1 worker  2 lease in ms
--
-- Returns 1; 0 if there is no lease any more: none is begun here.

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
redis.call('ZADD', KEYS[1], server_time() + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
