-- Ends a worker's lease and puts all that it holds back to the front of the lists.
--
-- KEYS  1 workers     sorted set: worker -> end of its lease, ms of the server's clock
--       2 in flight   hash: token -> held message (take.lua)
--       3 deliveries  hash: SHA-1 of a message -> how often a worker died with it
--       4 answered    first token of the worker's last request that sent something
-- ARGV  1 worker  2 how long to remember deaths, in ms
--       3 the lease end that ran out; absent when the worker leaves by itself
--
-- Gives the number of messages put back; each counts as one more death if the lease
-- ran out. Does nothing if the lease was renewed meanwhile.

local died = ARGV[3]
if died and redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= died then
  return 0
end

local back, all = {}, redis.call('HVALS', KEYS[2])
for index, held in ipairs(all) do
  local serial, size, at = held:match('^(%d+):(%d+):()')
  back[index] = {
    serial = tonumber(serial),
    list = held:sub(at, at + size - 1),
    message = held:sub(at + size),
  }
end
table.sort(back, function(one, other) return one.serial > other.serial end)
for _, one in ipairs(back) do
  redis.call('RPUSH', one.list, one.message)
  if died then
    redis.call('HINCRBY', KEYS[3], redis.sha1hex(one.message), 1)
  end
end
if died and #back > 0 then
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
end
if not died then -- a worker that lost its lease may still be asking again
  redis.call('DEL', KEYS[4])
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
return #back
