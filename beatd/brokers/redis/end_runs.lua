-- Forgets runs where they are still the current ones.
--
-- KEYS  1 runs  hash: entry -> task id of its current run
-- ARGV  entries, each followed by the task id of a run that ended

for index = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[index]) == ARGV[index + 1] then
    redis.call('HDEL', KEYS[1], ARGV[index])
  end
end
