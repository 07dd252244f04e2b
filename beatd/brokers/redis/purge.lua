-- Empties lists.
--
-- KEYS  1 runs  hash: entry -> task id of its current run
--       2...    lists
--
-- Returns the number of messages that were removed, and 1 while some are left. Only when
-- no run is remembered they all go at once: else the runs of the messages end, which
-- takes a look at each, at most a thousand in one step.

local STEP = 1000

local removed = 0
if redis.call('HLEN', KEYS[1]) == 0 then
  for index = 2, #KEYS do
    removed = removed + redis.call('LLEN', KEYS[index])
    redis.call('UNLINK', KEYS[index])
  end
  return {removed, 0}
end

for index = 2, #KEYS do
  local list = KEYS[index]
  local some = redis.call('LRANGE', list, 0, STEP - 1 - removed)
  for _, message in ipairs(some) do
    end_run(KEYS[1], run_of(message))
  end
  if #some > 0 then
    redis.call('LTRIM', list, #some, -1)
  end
  removed = removed + #some
  if removed == STEP then
    return {removed, 1}
  end
end
return {removed, 0}
