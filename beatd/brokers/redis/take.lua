-- Moves messages into a worker's in-flight set.
--
-- KEYS  1 workers     sorted set: worker -> end of its lease, ms of the server's clock
--       2 in flight   hash: token -> held message (below)
--       3 serial      counts what was ever taken
--       4 deliveries  hash: SHA-1 of a message -> how often a worker died with it
--       5 delayed     sorted set: id -> when it is due, ms of the server's clock
--       6 late        hash: id -> held message
--       7...          lists in the order in which they are to be emptied
-- ARGV  1 worker  2 attempt  3 limit  4 bytes after which it is enough
--
-- A held message is "<serial>:<length of list's name>:<list's name><message>": it can
-- go back to where it lay, and in what order, whatever bytes it has.
--
-- Gives for each message: number of the token, list, message, deaths. Nothing if the
-- worker has no lease. The same attempt again gives the same, and takes no more.

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 100)
for index = #due, 1, -1 do -- the first one due ends up in front
  local held = redis.call('HGET', KEYS[6], due[index])
  if held then
    local size, at = held:match('^%d+:(%d+):()')
    redis.call('RPUSH', held:sub(at, at + size - 1), held:sub(at + size))
  end
  redis.call('ZREM', KEYS[5], due[index])
  redis.call('HDEL', KEYS[6], due[index])
end

local limit, given = tonumber(ARGV[3]), {}
local died = redis.call('HLEN', KEYS[4]) > 0
local function give(number, list, message)
  local deaths = died and redis.call('HGET', KEYS[4], redis.sha1hex(message))
  local size = #given
  given[size + 1], given[size + 2] = number, list
  given[size + 3], given[size + 4] = message, tonumber(deaths or 0)
end

for number = 1, limit do
  local held = redis.call('HGET', KEYS[2], ARGV[2] .. ':' .. number)
  if not held and number == 1 then
    break -- a new attempt: the first token is only settled after its answer arrived
  end
  if held then
    local size, at = held:match('^%d+:(%d+):()')
    give(number, held:sub(at, at + size - 1), held:sub(at + size))
  end
end
if #given > 0 then
  return given
end

local taken, size, enough = 0, 0, tonumber(ARGV[4])
local function take(list, message)
  taken, size = taken + 1, size + #message
  local serial = string.format('%.0f', redis.call('INCR', KEYS[3]))
  local held = serial .. ':' .. #list .. ':' .. list .. message
  redis.call('HSET', KEYS[2], ARGV[2] .. ':' .. taken, held)
  give(taken, list, message)
end

local index = 7
while index <= #KEYS and taken < limit and size < enough do
  -- Not more than a few: what is too much has to go back.
  local list, some = KEYS[index], math.min(limit - taken, 16)
  local found = redis.call('RPOP', list, some) or {}
  local number = 1
  while number <= #found and size < enough do
    take(list, found[number])
    number = number + 1
  end
  for surplus = #found, number, -1 do
    redis.call('RPUSH', list, found[surplus])
  end
  if #found < some then
    index = index + 1
  end
end
return given
