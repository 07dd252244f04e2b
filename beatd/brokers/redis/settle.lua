-- Settles deliveries and sends what follows from them, in one step.
--
-- KEYS  1 in flight    hash: token -> held message (prelude.lua)
--       2 answered     text: "<number> <answers>" of the worker's last request
--       3 runs         hash: entry -> task id of its current run
--       4 deliveries   hash: SHA-1 of a message -> how often a worker died with it
--       5 delayed      sorted set: id -> when it is due, ms of the server's clock
--       6 late         hash: id -> held message
--       7 dead         hash: id of a dead letter -> JSON record of how it came to that
--       8 messages     hash: the same id -> held message
--       9 dead serial  the last such id
-- ARGV  1 number of the request, 0: not remembered  2 how long to remember it, in ms
--       3 number of acts  4 number of words that send
--       5...  what to send, each as its number of words and the words: LPUSH, PEXPIRE,
--             PUBLISH as Redis has them, and for a message that waits
--             DELAY, id, ms to wait, held message;
--             then acts, each as its name, the token, and:
--               acknowledge  nothing more
--               begin        entry, run that begins now, SHA-1 of the message
--               finish       entry, run that ended ("": none), SHA-1 of the message
--               pass_on      nothing more: the run goes on with another message
--               delay        id, ms to wait
--               set_aside    record, SHA-1 of the message, held message ("": it is in flight)
--               give_back    nothing more
--             (SHA-1: "" unless a worker died with the message)
--
-- Returns "" when all acts are done; else a line for each: d(one), g(one) as it is not in
-- flight, or r(efused) with the reason. The request that is remembered does nothing when
-- it is made again, and has the same answer; an earlier request does nothing. One with
-- nothing but ends of runs need not be: made again, it has nothing to do. If the server
-- refuses anything that is to be sent, nothing is sent, and no act is done; only a message
-- that was published cannot be taken back. A full server refuses to send, and lets all
-- acts be done.

local ARGV, KEYS = ARGV, KEYS -- locals are found faster
local request, acts, sends = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])

if request > 0 then
  local last, known = (redis.call('GET', KEYS[2]) or ''):match('^(%d+) (.*)$')
  if last and request <= tonumber(last) then
    return request == tonumber(last) and known or ('g\n'):rep(acts):sub(1, -2)
  end
end

local function remember(answers)
  local text = ARGV[1] .. ' ' .. answers
  local answer = redis.pcall('SET', KEYS[2], text, 'PX', ARGV[2])
  return answer.err and answer
end

-- The most frequent request first, without what the others need: acknowledgements only.
local only = sends == 0 and #ARGV == 4 + 2 * acts
for at = 5, only and #ARGV or 0, 2 do
  only = only and ARGV[at] == 'acknowledge'
end
if only then
  local answers, all_done = {}, true
  for number = 1, acts do
    -- All are in one key: what is refused to one of them is refused to all.
    local answer = redis.call('HDEL', KEYS[1], ARGV[4 + 2 * number]) == 1 and 'd' or 'g'
    answers[number] = answer
    all_done = all_done and answer == 'd'
  end
  answers = all_done and '' or table.concat(answers, '\n')
  if request > 0 then
    remember(answers)
  end
  return answers
end

local undo = {}
local function push(list, ...)
  local answer = redis.pcall('LPUSH', list, ...)
  if type(answer) == 'number' then
    undo[#undo + 1] = {'LPOP', list, select('#', ...)}
  end
  return answer
end

local function push_late(id, wait, held)
  local answer = redis.pcall('HSET', KEYS[6], id, held)
  if type(answer) == 'number' then
    undo[#undo + 1] = {'HDEL', KEYS[6], id}
    undo[#undo + 1] = {'ZREM', KEYS[5], id}
    answer = redis.pcall('ZADD', KEYS[5], whole(server_time() + wait), id)
  end
  return answer
end

local function send_all(at, to)
  while at <= to do
    local words, command = tonumber(ARGV[at]), ARGV[at + 1]
    local answer
    if command == 'LPUSH' then
      answer = push(unpack(ARGV, at + 2, at + words))
    elseif command == 'DELAY' then
      answer = push_late(unpack(ARGV, at + 2, at + words))
    else
      answer = redis.pcall(unpack(ARGV, at + 1, at + words))
    end
    if type(answer) == 'table' then
      return answer
    end
    at = at + 1 + words
  end
end

if sends > 0 then
  -- First of all: a full server refuses the first command, and nothing is done. The
  -- request is remembered before any act: whatever becomes of the acts, its messages
  -- are not sent once more.
  local refusal = send_all(5, 4 + sends)
  if request > 0 then
    refusal = refusal or remember('')
  end
  if refusal then
    for index = #undo, 1, -1 do
      redis.pcall(unpack(undo[index]))
    end
    return refusal
  end
else
  pass_when_full(KEYS[1])
end

-- Have `move` put what is held under a token somewhere else. It first reads the keys to
-- be written, which fails where one is of a wrong type: no message is there twice.
local function moving(at, move)
  local held = redis.call('HGET', KEYS[1], ARGV[at + 1])
  if not held then
    return 'g'
  end
  if not released(held) then
    return 'rwhat is in flight under this token is no message that beatd put there'
  end
  pass_when_full(KEYS[1]) -- fails here if writing is not permitted at all
  move(held)
  redis.call('HDEL', KEYS[1], ARGV[at + 1])
  return 'd'
end

local act = {}

function act.acknowledge(at)
  return redis.call('HDEL', KEYS[1], ARGV[at + 1]) == 1 and 'd' or 'g'
end

-- Both are asked before anything is done: they fail where a key is of a wrong type.
local function is_current(entry, run)
  return run ~= '' and redis.call('HGET', KEYS[3], entry) == run
end

local function is_suspect(digest)
  return digest ~= '' and redis.call('HEXISTS', KEYS[4], digest) == 1
end

function act.begin(at)
  local token, entry, run, digest = unpack(ARGV, at + 1, at + 4)
  local current, suspect = is_current(entry, run), is_suspect(digest)
  if redis.call('HDEL', KEYS[1], token) == 0 then
    return 'g'
  end
  if current then
    redis.call('HSET', KEYS[1], begun(token), hold(0, entry, run))
  end
  if suspect then
    redis.call('HDEL', KEYS[4], digest)
  end
  return 'd'
end

function act.finish(at)
  local token, entry, run, digest = unpack(ARGV, at + 1, at + 4)
  local current, suspect = is_current(entry, run), is_suspect(digest)
  if redis.call('HDEL', KEYS[1], token, begun(token)) == 0 then
    return 'g'
  end
  if current then
    redis.call('HDEL', KEYS[3], entry)
  end
  if suspect then
    redis.call('HDEL', KEYS[4], digest)
  end
  return 'd'
end

function act.pass_on(at)
  local token = ARGV[at + 1]
  return redis.call('HDEL', KEYS[1], token, begun(token)) == 1 and 'd' or 'g'
end

function act.delay(at)
  return moving(at, function(held)
    local id, wait = ARGV[at + 2], ARGV[at + 3]
    redis.call('ZSCORE', KEYS[5], id)
    redis.call('HSET', KEYS[6], id, held)
    redis.call('ZADD', KEYS[5], whole(server_time() + wait), id)
  end)
end

function act.set_aside(at)
  local token, record, digest, own = unpack(ARGV, at + 1, at + 4)
  local function set_aside(held)
    local _, message = released(held)
    for _, hash in ipairs({KEYS[4], KEYS[7], KEYS[8]}) do
      redis.call('HLEN', hash)
    end
    local id = redis.call('INCR', KEYS[9])
    end_run(KEYS[3], run_of(message))
    redis.call('HSET', KEYS[8], id, held)
    redis.call('HSET', KEYS[7], id, record)
    redis.call('HDEL', KEYS[4], digest)
  end
  if own == '' then
    return moving(at, set_aside)
  end
  pass_when_full(KEYS[1])
  set_aside(own) -- acknowledged before: the message is in no key any more
  redis.call('HDEL', KEYS[1], token, begun(token))
  return 'd'
end

function act.give_back(at)
  return moving(at, function(held)
    redis.call('RPUSH', released(held))
  end)
end

local answers, all_done = {}, true
local function try(number, at)
  local fine, answer = pcall(act[ARGV[at]], at)
  if not fine then
    answer = 'r' .. (type(answer) == 'table' and answer.err or answer):gsub('\n', ' ')
  end
  answers[number] = answer
  all_done = all_done and answer == 'd'
end

local WORDS = {
  acknowledge = 2, begin = 5, finish = 5, pass_on = 2,
  delay = 4, set_aside = 5, give_back = 2,
}
local back, at = {}, 5 + sends
for number = 1, acts do
  if ARGV[at] == 'give_back' then
    back[#back + 1] = {number, at}
  else
    try(number, at)
  end
  at = at + WORDS[ARGV[at]]
end
for index = #back, 1, -1 do -- so that the first one ends up in front
  try(unpack(back[index]))
end

answers = all_done and '' or table.concat(answers, '\n')
if request > 0 and not (sends > 0 and all_done) then
  remember(answers)
end
return answers
