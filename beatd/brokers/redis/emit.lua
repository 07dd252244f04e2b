-- Queues each emission that the ledger does not know, in one step.
--
-- KEYS  1 lead    text "<number> <nonce> <holder>", expires with the lead
--       2 ledger  hash: entry -> mark, a text that begins with the slot
--       3 runs    hash: entry -> task id of its current run
--       4...      destinations: lists and channels
-- ARGV  1 term as "<number> <nonce> "  2 ttl in ms  3 number n of emissions
--       4...  n entries, n slots, n marks, n times the numbers of destinations with
--             "," between ("" is none), n messages, n runs ("" is none);
--             then for each destination "channel", or the life of the list in ms
--             ("0" is for ever)
--
-- Gives one letter for each emission: q(ueued), d(ropped), k(nown); or false, having
-- done nothing, if the term is over. Whatever the server refuses: the ledger has no
-- slot whose message is not queued, and no message is queued whose slot it lacks.

local held = redis.call('GET', KEYS[1])
if not held or held:sub(1, #ARGV[1]) ~= ARGV[1] then
  return false
end

local count = tonumber(ARGV[3])
local entries = 3
local slots, marks, routes = entries + count, entries + 2 * count, entries + 3 * count
local messages, runs, kinds = entries + 4 * count, entries + 5 * count, entries + 6 * count
local CHUNK = 1000 -- Lua passes only so many arguments at once

for index = 1, #KEYS - 3 do
  if ARGV[kinds + index] ~= 'channel' then
    local key = KEYS[3 + index]
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'list' and kind ~= 'none' then
      return redis.error_reply('WRONGTYPE the queue ' .. key .. ' is a ' .. kind)
    end
  end
end

-- What is new? Rows that this batch writes count for what follows in it.
local outcomes, latest, former, fresh_runs, batches, news = {}, {}, {}, {}, {}, {}
for from = 1, count, CHUNK do
  local to = math.min(from + CHUNK - 1, count)
  local rows = redis.call('HMGET', KEYS[2], unpack(ARGV, entries + from, entries + to))
  for index = from, to do
    local entry, slot = ARGV[entries + index], tonumber(ARGV[slots + index])
    local row = rows[index - from + 1]
    local written = latest[entry]
    local known = written and tonumber(ARGV[slots + written])
      or row and tonumber(row:match('^%-?%d+') or '')
    if known and known >= slot then
      outcomes[index] = 'k'
    else
      if not written then
        former[entry] = row
      end
      latest[entry] = index
      if ARGV[runs + index] ~= '' then
        fresh_runs[#fresh_runs + 1] = entry
        fresh_runs[#fresh_runs + 1] = ARGV[runs + index]
      end
      local route = ARGV[routes + index]
      outcomes[index] = route == '' and 'd' or 'q'
      for place in route:gmatch('%d+') do
        local destination = tonumber(place)
        local batch = batches[destination]
        if not batch then
          batch = {}
          batches[destination] = batch
        end
        batch[#batch + 1] = ARGV[messages + index]
      end
    end
  end
end

local function in_chunks(command, key, values)
  for from = 1, #values, CHUNK do
    local to = math.min(from + CHUNK - 1, #values)
    local answer = redis.pcall(command, key, unpack(values, from, to))
    if type(answer) == 'table' and answer.err then
      return answer
    end
  end
end

-- The ledger first: a server that is full or read-only refuses here, at the first
-- write. A refusal after it can only be a missing permission; the rows go back then.
for entry, index in pairs(latest) do
  news[#news + 1] = entry
  news[#news + 1] = ARGV[marks + index]
end
local refusal = in_chunks('HSET', KEYS[2], news)
if refusal then
  return refusal
end

for destination, batch in pairs(batches) do
  local key = KEYS[3 + destination]
  if ARGV[kinds + destination] == 'channel' then
    for _, message in ipairs(batch) do
      refusal = refusal or in_chunks('PUBLISH', key, {message})
    end
  else
    refusal = in_chunks('LPUSH', key, batch)
  end
  if refusal then
    for entry, row in pairs(former) do
      if row then
        redis.call('HSET', KEYS[2], entry, row)
      else
        redis.call('HDEL', KEYS[2], entry)
      end
    end
    return refusal
  end
end

for index = 1, #KEYS - 3 do
  local life = tonumber(ARGV[kinds + index])
  if life and life > 0 then
    redis.call('PEXPIRE', KEYS[3 + index], life)
  end
end
for index = 1, #fresh_runs, 2 do
  redis.call('HSET', KEYS[3], fresh_runs[index], fresh_runs[index + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return table.concat(outcomes)
