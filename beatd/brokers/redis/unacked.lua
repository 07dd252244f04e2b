-- Puts back a message that a worker of Celery's has held for too long.
--
-- KEYS  1 unacked  hash: delivery tag -> JSON of message, exchange, routing key
--       2 index    sorted set: delivery tag -> when it was taken, in seconds
--       3...       the lists that it goes to
-- ARGV  1 delivery tag  2 the row as it was read  3 when it was taken at the latest
--       4 the message
--
-- Returns 1; having done nothing, 0 if it was acknowledged, put back or taken anew
-- meanwhile, and 2 if its row is another one than was read. If one of
-- the lists refuses it, it stays where it is. A full server lets the script run.

local taken = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not taken or tonumber(taken) > tonumber(ARGV[3]) then
  return 0
end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 2
end
pass_when_full(KEYS[1])
for index = 3, #KEYS do
  local answer = redis.pcall('RPUSH', KEYS[index], ARGV[4])
  if type(answer) == 'table' then
    for pushed = 3, index - 1 do
      redis.call('RPOP', KEYS[pushed])
    end
    return answer
  end
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
