-- Puts back what lies in flight under a worker that does not know of it.
--
-- KEYS  1 in flight  hash: token -> held message (prelude.lua)
--       2 runs       hash: entry -> task id of its current run
--       3 ended      text: the tokens whose runs have ended, with spaces between them
-- ARGV  1 the tokens that the worker holds, with spaces between them
--       2 number of the worker's first request that may not have been answered
--       3 those of the tokens whose runs have ended  4 how long to remember them, in ms
--
-- Returns the number of messages put back; none counts as a death. Runs that the worker
-- does not know to have begun are over. A message that its list refuses stays in flight,
-- as does what is no held message.
-- A full server lets the script run.

if ARGV[3] == '' then
  redis.call('DEL', KEYS[3])
else
  pass_when_full(KEYS[1])
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
end

local there = redis.call('HKEYS', KEYS[1])
local held = #there > 0 and tokens_in(ARGV[1])

local serials, strays = {}, {}
local function look_at(name)
  local token = name:match('^begun:(.+)') or name
  local request = tonumber(token:match('^(%d+):'))
  if not request or request >= tonumber(ARGV[2]) or held[token] then
    return
  end
  local message = redis.call('HGET', KEYS[1], name)
  if name == token then
    strays[#strays + 1] = token
    serials[token] = tonumber(message:match('^%d+')) or 0
  else
    local entry, run = released(message)
    if entry then -- else leave.lua keeps it apart
      end_run(KEYS[2], entry, run)
      redis.call('HDEL', KEYS[1], name)
    end
  end
end

for _, name in ipairs(there) do
  if not held[name] then -- nearly always all are
    look_at(name)
  end
end
if #strays == 0 then
  return 0
end

pass_when_full(KEYS[1])
table.sort(strays, function(one, other) return serials[one] > serials[other] end)
local back = 0
for _, token in ipairs(strays) do
  local list, message = released(redis.call('HGET', KEYS[1], token))
  if list and type(redis.pcall('RPUSH', list, message)) ~= 'table' then
    redis.call('HDEL', KEYS[1], token)
    back = back + 1
  end
end
return back
