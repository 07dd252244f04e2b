-- Settles deliveries and sends what follows from them, in one step.
--
-- KEYS  1 in flight   hash: token -> held message (take.lua)
--       2 runs        hash: entry -> task id of its current run
--       3 deliveries  hash: SHA-1 of a message -> how often a worker died with it
--       4 answered    first token of the worker's last request that sent something
-- ARGV  1 number n of deliveries  2 how long to remember the request, in ms
--       3...  n times: token, entry, run that ended ("" is none), SHA-1 of the message
--             ("" unless it is in `deliveries`);
--             then commands, each as its number of words and the words
--
-- A delivery that is not in flight is passed over, and its run is not ended. The
-- commands are done once, also when the request is made again.

local at = 3 + 4 * tonumber(ARGV[1])
local sends, named = at <= #ARGV, ARGV[1] ~= '0'
if sends and not (named and redis.call('GET', KEYS[4]) == ARGV[3]) then
  -- First of all: a server that is full refuses the first command, nothing is done.
  while at <= #ARGV do
    local words = tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, at + words))
    at = at + 1 + words
  end
  if named then
    redis.call('SET', KEYS[4], ARGV[3], 'PX', ARGV[2])
  end
end

for index = 3, 2 + 4 * tonumber(ARGV[1]), 4 do
  local token, entry, run, digest = unpack(ARGV, index, index + 3)
  if redis.call('HDEL', KEYS[1], token) == 1 then
    if run ~= '' and redis.call('HGET', KEYS[2], entry) == run then
      redis.call('HDEL', KEYS[2], entry)
    end
    if digest ~= '' then
      redis.call('HDEL', KEYS[3], digest)
    end
  end
end
