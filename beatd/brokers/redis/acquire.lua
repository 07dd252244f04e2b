-- Takes the lead if nobody holds it.
--
-- KEYS  1 lead  text "<number> <nonce> <holder>", expires with the lead
--       2 term  the largest number that was ever given
--       3 4     where a lead, and a term, that are none of ours are kept
--       5 ledger  hash: entry -> mark; field "\255": "<lineage> <version> <terms>"
-- ARGV  1 holder  2 ttl in ms  3 floor  4 nonce
--
-- Returns the term's number, above the floor and all before; then "lead" and "term" if
-- they were none of ours, and are kept under other names. While someone leads: 0, the
-- ledger's edition, empty if it has none, number and nonce of the term, and the ms that
-- it has left.
-- The same nonce again (its answer was lost) gives the term that it took.

local answer = {0}
local held = redis.call('GET', KEYS[1])
if held then
  local number, nonce = held:match('^(%d+) (%S+) ')
  if nonce == ARGV[4] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {tonumber(number)}
  end
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 then
    -- A ledger of a wrong type is the leader's trouble.
    local edition = redis.pcall('HGET', KEYS[5], '\255')
    return {0, type(edition) == 'string' and edition or '', number or 0, nonce or '', left}
  end
  -- Every lead expires: for this one all would wait for ever.
  redis.call('RENAME', KEYS[1], KEYS[3])
  table.insert(answer, 'lead')
end

local stored = redis.call('GET', KEYS[2])
local last = 0
if stored then
  if stored:match('^%d+$') and #stored < 16 then
    last = tonumber(stored)
  else
    redis.call('RENAME', KEYS[2], KEYS[4])
    table.insert(answer, 'term')
  end
end
local number = whole(math.max(last, tonumber(ARGV[3])) + 1)
redis.call('SET', KEYS[2], number)
redis.call('SET', KEYS[1], number .. ' ' .. ARGV[4] .. ' ' .. ARGV[1], 'PX', ARGV[2])
answer[1] = tonumber(number)
return answer
