-- Settles deliveries and sends what follows from them, in one step.
--
-- KEYS  1 in flight   hash: token -> held message (take.lua)
--       2 runs        hash: entry -> task id of its current run
--       3 deliveries  hash: SHA-1 of a message -> how often a worker died with it
--       4 answered    first token of the worker's last request that sent something
-- ARGV  1 number n of deliveries  2 how long to remember the request, in ms
--       3...  n times: token, entry, run that ended ("" is none), SHA-1 of the message
--             ("" unless it is in `deliveries`);
--             then commands, each as its number of words and the words: LPUSH,
--             PEXPIRE, PUBLISH as Redis has them, and for a message that waits
--             DELAY, `delayed`, `late` (take.lua), id, ms to wait, held message
--
-- A delivery that is not in flight is passed over, and its run is not ended. The
-- commands are done once, also when the request is made again; when one is refused none
-- is done, and nothing is settled. Only what was published stays said.

local undo = {}
local function push(key, ...)
  local answer = redis.pcall('LPUSH', key, ...)
  if type(answer) == 'number' then
    undo[#undo + 1] = {'LPOP', key, select('#', ...)}
  end
  return answer
end

local function delay(delayed, late, id, wait, held)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local answer = redis.pcall('HSET', late, id, held)
  if type(answer) == 'number' then
    undo[#undo + 1] = {'HDEL', late, id}
    undo[#undo + 1] = {'ZREM', delayed, id}
    answer = redis.pcall('ZADD', delayed, string.format('%.0f', now + wait), id)
  end
  return answer
end

local at = 3 + 4 * tonumber(ARGV[1])
local sends, named = at <= #ARGV, ARGV[1] ~= '0'
if sends and not (named and redis.call('GET', KEYS[4]) == ARGV[3]) then
  -- First of all: a server that is full refuses the first command, nothing is done.
  while at <= #ARGV do
    local words, command = tonumber(ARGV[at]), ARGV[at + 1]
    local answer
    if command == 'LPUSH' then
      answer = push(unpack(ARGV, at + 2, at + words))
    elseif command == 'DELAY' then
      answer = delay(unpack(ARGV, at + 2, at + words))
    else
      answer = redis.pcall(unpack(ARGV, at + 1, at + words))
    end
    if type(answer) == 'table' then
      for index = #undo, 1, -1 do
        redis.call(unpack(undo[index]))
      end
      return answer
    end
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
