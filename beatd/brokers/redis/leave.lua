-- Ends a worker's lease and puts its messages in flight back to the fronts of their
-- lists.
--
-- KEYS  1 workers     sorted set: worker -> end of its lease, ms of the server's clock
--       2 lengths     hash: worker -> length of its lease, ms
--       3 in flight   hash: token -> held message (prelude.lua)
--       4 deliveries  hash: SHA-1 of a message -> how often a worker died with it
--       5 runs        hash: entry -> task id of its current run
--       6 apart       hash: key and field of what was held, and no held message -> that
--       7 ended       text: the tokens whose runs have ended, with spaces between them
--       8 queues      hash: worker -> the queues that it takes from, in JSON, for people
-- ARGV  1 worker  2 how long to remember deaths, in ms
--       3 the lease end that ran out; absent when the worker leaves by itself
--
-- Returns the number of messages put back, then the fields of what was no held message,
-- and is kept apart. Each message counts as one more death if the lease
-- ran out, but for those whose runs had ended. Runs that the worker has begun are over. Does nothing if the lease was renewed
-- meanwhile. A message that its list refuses stays in flight, and the lease that ran out
-- stays with it, for other workers to try again. What is remembered of the worker's
-- requests is left until it expires: copies of them may still be under way. A full server
-- lets the script run.

local died = ARGV[3]
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if died and (not ends or tonumber(ends) ~= tonumber(died)) then
  return {0}
end
pass_when_full(KEYS[3])

-- Each message is read twice: all of them at once may be too much for the memory.
local serials, tokens, answer = {}, {}, {0}
for _, token in ipairs(redis.call('HKEYS', KEYS[3])) do
  local held = redis.call('HGET', KEYS[3], token)
  local list, content = released(held)
  if not list then
    keep_apart(KEYS[6], KEYS[3], token, held)
    answer[#answer + 1] = token
  elseif token:find('^begun:') then
    end_run(KEYS[5], list, content)
    redis.call('HDEL', KEYS[3], token)
  else
    tokens[#tokens + 1] = token
    serials[token] = tonumber(held:match('^%d+'))
  end
end
table.sort(tokens, function(one, other) return serials[one] > serials[other] end)
local back, ended = 0, tokens_in(redis.call('GET', KEYS[7]))
for _, token in ipairs(tokens) do
  local list, message = released(redis.call('HGET', KEYS[3], token))
  if type(redis.pcall('RPUSH', list, message)) ~= 'table' then
    redis.call('HDEL', KEYS[3], token)
    back = back + 1
    local digest = died and not ended[token] and redis.sha1hex(message)
    if digest and type(redis.pcall('HINCRBY', KEYS[4], digest, 1)) == 'table' then
      redis.call('HSET', KEYS[4], digest, 1) -- it was no number
    end
  end
end
if died and back > 0 then
  redis.call('PEXPIRE', KEYS[4], ARGV[2])
end
if back == #tokens then
  redis.call('DEL', KEYS[7])
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[8], ARGV[1])
end
answer[1] = back
return answer
