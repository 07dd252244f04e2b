-- Queues each emission that the ledger does not know, in one step.
--
-- KEYS  1 lead    text "<number> <nonce> <holder>", expires with the lead
--       2 ledger  hash: entry -> mark, a text that begins with the slot; field "\255":
--                 the edition as "<lineage> <version> <terms>"
--       3 runs    hash: entry -> task id of its current run
--       4 pages   list: pages of the history
--       5 history hash: entry -> records; field "\255": the number of the last page
--       6...      places: lists and channels
-- ARGV  1 term as "<number> <nonce> "  2 ttl in ms  3 number n of emissions
--       4 for each emission the number of its way, in two bytes, the higher one first
--       5 number w of ways
--       6 for each emission the number of its mark, as 4; 7 number m of marks
--       8 9   the edition before and after this; both "" for whatever it is
--       10... n entries, n messages, m marks;
--             for each place "channel", or the life of the list in ms ("0": for ever),
--             or "!" and why it is refused (its key is then the ledger's);
--             w ways, each the numbers of places with "," between ("": none wanted,
--             "-": none was found);
--             then runs to remember of what is queued, each as the emission's number
--             and the task id;
--             last a page of the history, "" for none, and how many are kept
--
-- A mark is "<slot> <runs> <last>[^<high>] <fingerprint>".
-- What has a way to no place is no run: the runs and the last slot of its mark do not
-- count.
--
-- Returns one letter for each emission: q(ueued), d(ropped), k(nown), r(efused); with
-- refused ones a list of those letters and, for each "r", the reason; or, having done
-- nothing, false if the term is over, and 0 if the ledger has another edition. Refused
-- are emissions with a place that is refused or of a wrong type, and later ones of the
-- same entry: their rows and all their places stay as they are. Whatever else the server
-- refuses: the ledger has no slot whose message is not queued, and no message is queued
-- whose slot is not in the ledger; messages pushed before a refusal are removed again.
-- Only a message that was published cannot be taken back.

local KEYS, ARGV = KEYS, ARGV -- locals are found faster
local call, tonumber, byte, match = redis.call, tonumber, string.byte, string.match
local EDITION = '\255'
local CHUNK = 1000 -- Lua passes only so many arguments at once
local LATEST = 253402300799999 -- the last ms of the year 9999: no slot is later

if not leads(KEYS[1], ARGV[1]) then
  return false
end
local edition, before, after = false, ARGV[8], ARGV[9]
if after ~= '' then
  edition = call('HGET', KEYS[2], EDITION)
  if edition ~= before and edition ~= after then
    return 0
  end
end

local count, way_of, mark_of = tonumber(ARGV[3]), ARGV[4], ARGV[6]
local entries, messages, marks = 9, 9 + count, 9 + 2 * count
local kinds = marks + tonumber(ARGV[7])
local places = #KEYS - 5
local page, most = ARGV[#ARGV - 1], ARGV[#ARGV]
local ways = kinds + places
local runs = ways + tonumber(ARGV[5])

local batches = {} -- what is to be put on each place
local refused = {} -- why nothing may be
for place = 1, places do
  local kind = ARGV[kinds + place]
  batches[place] = {}
  if byte(kind) == 33 then -- "!"
    refused[place] = kind:sub(2)
  elseif kind == 'channel' then
    -- Asked before anything is published: that could not be taken back.
    local may = redis.acl_check_cmd -- since 7.0
    if may and not may('PUBLISH', KEYS[5 + place], '') then
      refused[place] = 'NOPERM no permission to publish on channel ' .. KEYS[5 + place]
    end
  else
    local found = call('TYPE', KEYS[5 + place]).ok
    if found ~= 'list' and found ~= 'none' then
      refused[place] = 'WRONGTYPE ' .. KEYS[5 + place] .. ' is a ' .. found
    end
  end
end
local batches_of, closed = {}, {} -- the same for each way
local unrouted = {} -- whether it should have led somewhere
for way = 1, runs - ways do
  batches_of[way] = {}
  unrouted[way] = ARGV[ways + way] == '-'
  for place in ARGV[ways + way]:gmatch('%d+') do
    place = tonumber(place)
    table.insert(batches_of[way], batches[place])
    closed[way] = closed[way] or refused[place]
  end
end
local all_open = next(closed) == nil

-- Return the row when the slot of `mark` is dropped: with the runs of the row before.
local function without_run(mark, row)
  local slot, high, fingerprint = match(mark, '^(%S+) %S+ [^ ^]+(%S*) (.*)$')
  local counts = match(row or '', '^%S+ (%d+ [^ ^]+)') or '0 -'
  return slot .. ' ' .. counts .. high .. ' ' .. fingerprint
end

-- What is new? A row that this batch writes counts for what follows in it, and so does
-- a refusal: the row must not pass a slot that is not queued.
local rows, outcomes, latest, news, size = {}, {}, {}, {}, 0
local stopped, reasons = {}, {}
if after ~= '' then
  news, size = {EDITION, after}, 2
end
local slots = {} -- of each mark
for number = 1, kinds - marks do
  slots[number] = tonumber(match(ARGV[marks + number], '^%-?%d+'))
end
for from = 1, count, CHUNK do
  local to = math.min(from + CHUNK - 1, count)
  local found = call('HMGET', KEYS[2], unpack(ARGV, entries + from, entries + to))
  for index = from, to do
    local high, low = byte(mark_of, 2 * index - 1, 2 * index)
    local number = high * 256 + low
    local entry, mark, slot = ARGV[entries + index], ARGV[marks + number], slots[number]
    local row = found[index - from + 1]
    rows[index] = row
    row = latest[entry] or row
    local last = row and tonumber(match(row, '^%-?%d+') or '')
    high, low = byte(way_of, 2 * index - 1, 2 * index)
    local way = high * 256 + low
    if last and last >= slot and last <= LATEST then
      outcomes[index] = 'k'
    elseif not all_open and (stopped[entry] or closed[way]) then
      outcomes[index] = 'r'
      stopped[entry] = stopped[entry] or closed[way]
      reasons[#reasons + 1] = stopped[entry]
    else
      if unrouted[way] then
        mark = without_run(mark, row)
      end
      latest[entry] = mark
      news[size + 1], news[size + 2] = entry, mark
      size = size + 2
      local reached = batches_of[way]
      for number = 1, #reached do
        local batch = reached[number]
        batch[#batch + 1] = ARGV[messages + index]
      end
      outcomes[index] = #reached > 0 and 'q' or 'd'
    end
  end
end

local undo = {}
local function in_chunks(command, key, values)
  for from = 1, #values, CHUNK do
    local to = math.min(from + CHUNK - 1, #values)
    local answer = redis.pcall(command, key, unpack(values, from, to))
    if type(answer) == 'table' and answer.err then
      return answer
    end
    if command == 'LPUSH' then
      undo[#undo + 1] = {'LPOP', key, to - from + 1}
    end
  end
end

-- The ledger first: a server that is full or read-only refuses here, at the first
-- write. A later refusal can only be a missing permission; then all is undone.
-- Publishing cannot be undone, and comes last.
local refusal = in_chunks('HSET', KEYS[2], news)
if refusal then
  return refusal
end
for place, batch in ipairs(batches) do
  if ARGV[kinds + place] ~= 'channel' then
    refusal = refusal or in_chunks('LPUSH', KEYS[5 + place], batch)
  end
end
for place, batch in ipairs(batches) do
  if ARGV[kinds + place] == 'channel' then
    for _, message in ipairs(batch) do
      refusal = refusal or in_chunks('PUBLISH', KEYS[5 + place], {message})
    end
  end
end
if refusal then
  for index = #undo, 1, -1 do
    redis.pcall(unpack(undo[index])) -- whatever becomes of it, the rows go back
  end
  for index = 1, count do
    if rows[index] then
      call('HSET', KEYS[2], ARGV[entries + index], rows[index])
    else
      call('HDEL', KEYS[2], ARGV[entries + index])
    end
  end
  if edition then
    call('HSET', KEYS[2], EDITION, edition)
  end
  return refusal
end

for place = 1, places do
  local life = tonumber(ARGV[kinds + place])
  if life and life > 0 and not refused[place] then
    call('PEXPIRE', KEYS[5 + place], life)
  end
end
for at = runs + 1, #ARGV - 2, 2 do
  local index = tonumber(ARGV[at])
  if outcomes[index] == 'q' then
    call('HSET', KEYS[3], ARGV[entries + index], ARGV[at + 1])
  end
end
call('PEXPIRE', KEYS[1], ARGV[2])
local letters = table.concat(outcomes)
if page ~= '' and letters:find('[^k]') then
  add_page(KEYS[4], KEYS[5], letters .. ' ' .. page, most)
end
if #reasons > 0 then
  table.insert(reasons, 1, letters)
  return reasons
end
return letters
