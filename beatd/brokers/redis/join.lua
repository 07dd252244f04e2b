-- Begins a worker's lease, or makes it longer: see stay.lua.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
-- ARGV  1 worker  2 lease in ms

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
