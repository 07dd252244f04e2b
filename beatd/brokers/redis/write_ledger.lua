-- Writes rows of the ledger whatever they were.
--
-- KEYS  1 lead    text "<number> <nonce> <holder>", expires with the lead
--       2 ledger  hash: entry -> mark; field "\255": "<lineage> <version> <terms>"
--       3 era     the clock era
--       4 runs    hash: entry -> task id of its current run
-- ARGV  1 term as "<number> <nonce> "  2 era  3 the edition, "" to leave it as it is
--       4 number n of rows to write
--       5...  n entries, each followed by its mark; then entries to remove before
--
-- Returns 1; or 0, having done nothing, if the term is over. At most some thousand rows.

if not leads(KEYS[1], ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[3], ARGV[2])
local gone = 5 + 2 * tonumber(ARGV[4])
if #ARGV >= gone then
  redis.call('HDEL', KEYS[2], unpack(ARGV, gone))
  redis.call('HDEL', KEYS[4], unpack(ARGV, gone))
end
if gone > 5 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 5, gone - 1))
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], '\255', ARGV[3])
end
return 1
