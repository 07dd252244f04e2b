-- Moves messages into a worker's in-flight set.
--
-- KEYS  1 workers     sorted set: worker -> end of its lease, ms of the server's clock
--       2 in flight   hash: token -> held message (prelude.lua)
--       3 serial      counts all messages that were ever taken
--       4 deliveries  hash: SHA-1 of a message -> how often a worker died with it
--       5 delayed     sorted set: id -> when it is due, ms of the server's clock
--       6 late        hash: id -> held message
--       7 took        "<number> <stamp>" of the worker's last such request
--       8 apart       hash: key and field of what was held, and no held message -> that
--       9 ended       text: the tokens whose runs have ended, with spaces between them
--       10...         lists in the order in which they are to be emptied
-- ARGV  1 worker  2 number of the request  3 limit  4 bytes after which it is enough
--       5 how long to remember the number, in ms
--       6 how to treat messages that a worker died with: 'alone', 'alike' (only those with
--         one death), 'in company' (of what the worker has in flight), 'passed over'
--       7 how many of them to pass over  8 how many with one death to take together
--
-- Returns the stamp, then for each message: number, list, message, deaths; and for each
-- list that is no list or is forbidden, and was passed over: 0, list, reason, 0; and -1,
-- list, '', 0 if nothing was taken because of messages that a worker died with; and -2,
-- id, '', 0 for what was delayed, is no held message and is kept apart. Nothing if the
-- worker has no lease. The same request again returns the same messages, and takes no
-- more; an earlier one takes nothing. A full server lets the script run.
--
-- Tokens are "<number of the request>:<stamp>:<number>". The stamp is the moment of taking:
-- a copy of a request that comes when the server has lost what was taken before takes
-- other messages, and must not name them as the worker knows those.

local RETRY = 10000 -- ms until the next try with a message that its list refuses

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {}
end

pass_when_full(KEYS[2])

local request = tonumber(ARGV[2])
local last, stamp = (redis.call('GET', KEYS[7]) or ''):match('^(%d+) (%S+)$')
last = tonumber(last) or 0
if request < last then
  return {}
end
if request > last then
  local time = redis.call('TIME')
  stamp = time[1] .. time[2]
end
local attempt = ARGV[2] .. ':' .. stamp

local limit = tonumber(ARGV[3])
local own = {}
for index = 10, #KEYS do
  own[KEYS[index]] = true
end

local given = {stamp}
local function give(number, list, text, deaths)
  local size = #given
  given[size + 1], given[size + 2] = number, list
  given[size + 3], given[size + 4] = text, deaths
end

local now = server_time()
local over, room = {}, limit
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 100)) do
  local held = redis.call('HGET', KEYS[6], id)
  local list, message
  if held then
    list, message = released(held)
    if not list then
      keep_apart(KEYS[8], KEYS[6], id, held)
      give(-2, id, '', 0)
    end
  end
  if own[list] then
    if room == 0 then
      break -- put back no more than are taken: later ones must not get in front
    end
    room = room - 1
  end
  over[#over + 1] = {id = id, list = list, message = message}
end
for index = #over, 1, -1 do -- the first one due ends up in front
  local one = over[index]
  local answer = one.list and redis.pcall('RPUSH', one.list, one.message)
  if type(answer) == 'table' then -- refused: that must hold up no other message
    redis.call('ZADD', KEYS[5], now + RETRY, one.id)
  else
    redis.call('ZREM', KEYS[5], one.id)
    redis.call('HDEL', KEYS[6], one.id)
  end
end

local died = redis.call('HLEN', KEYS[4]) > 0
local function deaths_with(message)
  if not died then
    return 0
  end
  return tonumber(redis.call('HGET', KEYS[4], redis.sha1hex(message)) or 0) or 0
end

if request == last then -- what it took, whatever its limit is by now
  -- Its tokens have no gap: a worker settles none before it has the answer.
  local number = 1
  local held = redis.call('HGET', KEYS[2], attempt .. ':' .. number)
  while held do
    local list, message = released(held)
    if list then -- else leave.lua keeps it apart
      give(number, list, message, deaths_with(message))
    end
    number = number + 1
    held = redis.call('HGET', KEYS[2], attempt .. ':' .. number)
  end
  return given
end

-- So many serials at once, and before anything is popped: if it fails, nothing is lost.
local serial = redis.call('INCRBY', KEYS[3], limit) - limit
redis.call('SET', KEYS[7], ARGV[2] .. ' ' .. stamp, 'PX', ARGV[5])
local taken, size, enough = 0, 0, tonumber(ARGV[4])
local function take(list, message, deaths)
  taken, size = taken + 1, size + #message
  local held = hold(whole(serial + taken), list, message)
  redis.call('HSET', KEYS[2], attempt .. ':' .. taken, held)
  give(taken, list, message, deaths)
end

-- Return whether the worker has anything in flight that may be running.
local function is_busy()
  local ended = tokens_in(redis.call('GET', KEYS[9]))
  for _, token in ipairs(redis.call('HKEYS', KEYS[2])) do
    if not ended[token] and not token:find('^begun:') then
      return true
    end
  end
  return false
end

local suspects, most, passed, is_over = ARGV[6], tonumber(ARGV[7]), {}, false
local together = tonumber(ARGV[8])
local first -- how many died with the first one that was taken

-- Take a message or pass it over; return false if it stays in front of its list.
local function meet(list, message)
  local deaths = deaths_with(message)
  if deaths > 0 and suspects == 'passed over' then
    passed[#passed + 1] = {list, message}
    is_over = #passed >= most
    return true
  end
  if not first then
    if (suspects == 'alike' and deaths ~= 1)
        or (suspects == 'alone' and deaths > 0 and is_busy()) then
      give(-1, list, '', 0)
      is_over = true
      return false
    end
    first = deaths
  elseif deaths ~= first then
    is_over = true
    return false
  end
  take(list, message, deaths)
  is_over = deaths > 1 or (deaths == 1 and taken >= together)
  return true
end

local index = 10
while index <= #KEYS and taken < limit and size < enough and not is_over do
  -- A few at a time, and one at first: messages beyond the limit have to go back.
  local list, some = KEYS[index], math.min(limit - taken, taken + #passed + 1, 16)
  local found = redis.pcall('RPOP', list, some) or {}
  if found.err then -- of this list alone: writing as such was permitted above
    give(0, list, found.err, 0)
    found = {}
  end
  local number = 1
  while number <= #found and size < enough and not is_over do
    if not meet(list, found[number]) then
      break
    end
    number = number + 1
  end
  for surplus = #found, number, -1 do
    redis.call('RPUSH', list, found[surplus])
  end
  if #found < some then
    index = index + 1
  end
end
for number = #passed, 1, -1 do -- back to the front, in their order
  redis.call('RPUSH', unpack(passed[number]))
end
if taken == 0 and #passed > 0 then
  give(-1, passed[1][1], '', 0)
end
return given
