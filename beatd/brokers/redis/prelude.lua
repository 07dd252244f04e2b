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

-- Return list and message of a held message; nil for what is none.
local function released(held)
  local size, at = held:match('^%d+:(%d+):()')
  if at and at + size - 1 <= #held then
    return held:sub(at, at + size - 1), held:sub(at + size)
  end
end

-- Return the tokens in a text, with spaces between them, as the keys of a table.
local function tokens_in(text)
  local found = {}
  for token in (text or ''):gmatch('%S+') do
    found[token] = true
  end
  return found
end

-- Keep elsewhere what is held and is no held message: nobody can put it back.
local function keep_apart(apart, hash, field, held)
  redis.call('HSET', apart, hash .. ' ' .. field, held)
  redis.call('HDEL', hash, field)
end

-- Forget an entry's run if it is the current one.
local function end_run(runs, entry, run)
  if run and run ~= '' and redis.call('HGET', runs, entry) == run then
    redis.call('HDEL', runs, entry)
  end
end

-- Add a page to the history, and drop the oldest if more than `most` are there. Errors are
-- passed over (a key of another type, say): no emission is to fail for the history. The
-- scheduler meets the same error when it reads these keys, and says so.
local function add_page(pages, history, page, most)
  redis.pcall('HINCRBY', history, '\255', 1)
  local length = redis.pcall('RPUSH', pages, page)
  if type(length) == 'number' and length > tonumber(most) then
    redis.pcall('LTRIM', pages, -most, -1)
  end
end

-- Return entry and task id of a message that the scheduler emitted; for others an empty
-- task id.
local function run_of(message)
  local fine, read = false, nil
  if message:find('"beatd_entry"', 1, true) then
    fine, read = pcall(cjson.decode, message)
  end
  local headers = fine and type(read) == 'table' and read.headers
  local entry = type(headers) == 'table' and headers.beatd_entry
  if type(entry) == 'string' and type(headers.id) == 'string' then
    return entry, headers.id
  end
  return '', ''
end

-- The current run of a delivery that was acknowledged before it began is held beside
-- what is in flight, as the entry and the task id, under this name.
local function begun(token)
  return 'begun:' .. token
end

