-- What the scripts share: this text stands before each of them.

-- Return whether the lead is held under `term`, "<number> <nonce> ".
local function leads(lead, term)
  local held = redis.call('GET', lead)
  return held and held:sub(1, #term) == term
end

-- Return the server's time in ms.
local function server_time()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Return a whole number as a text without an exponent.
local function whole(number)
  return string.format('%.0f', number)
end

-- Have a full server let a script run that only moves what is there. A full server
-- refuses a script whose first write may need memory; this write needs none.
local function pass_when_full(hash)
  return redis.call('HDEL', hash, '')
end

-- A message that lies in no list is held as
-- "<serial>:<length of the list's name>:<list's name><message>": it can go back to the
-- list in which it lay, and in the order of taking, whatever bytes it has.
local function hold(serial, list, message)
  return serial .. ':' .. #list .. ':' .. list .. message
end

-- Return list and message of a held message.
local function released(held)
  local size, at = held:match('^%d+:(%d+):()')
  return held:sub(at, at + size - 1), held:sub(at + size)
end

