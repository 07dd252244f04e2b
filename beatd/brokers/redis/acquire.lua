-- Takes the lead if nobody holds it.
--
-- KEYS  1 lead  text "<number> <nonce> <holder>", expires with the lead
--       2 term  the largest number that was ever given
-- ARGV  1 holder  2 ttl in ms  3 floor  4 nonce
--
-- Returns the term's number, above the floor and all before; false while someone leads.
-- The same nonce again (its answer was lost) gives the term that it took.

local held = redis.call('GET', KEYS[1])
if held then
  local number, nonce = held:match('^(%d+) (%S+) ')
  if nonce ~= ARGV[4] then
    return false
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(number)
end

local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local number = whole(math.max(last, tonumber(ARGV[3])) + 1)
redis.call('SET', KEYS[2], number)
redis.call('SET', KEYS[1], number .. ' ' .. ARGV[4] .. ' ' .. ARGV[1], 'PX', ARGV[2])
return tonumber(number)
