-- Writes rows of the ledger whatever they were.
--
-- KEYS  1 lead    text "<number> <nonce> <holder>", expires with the lead
--       2 ledger  hash: entry -> mark; field "\255": "<lineage> <version> <terms>"
--       3 era     the clock era
--       4 runs    hash: entry -> task id of its current run
--       5 pages   list: pages of the history
--       6 history hash: entry -> records; field "\255": the number of the last page
-- ARGV  1 term as "<number> <nonce> "  2 era  3 the edition, "" to leave it as it is
--       4 a page of the history, "" for none  5 how many are kept
--       6 number n of rows to write
--       7...  n entries, each followed by its mark; then entries to remove before
--
-- Returns 1; or 0, having done nothing, if the term is over. At most some thousand rows.

if not leads(KEYS[1], ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[3], ARGV[2])
local gone = 7 + 2 * tonumber(ARGV[6])
if #ARGV >= gone then
  redis.call('HDEL', KEYS[2], unpack(ARGV, gone))
  redis.call('HDEL', KEYS[4], unpack(ARGV, gone))
end
if gone > 7 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 7, gone - 1))
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], '\255', ARGV[3])
end
if ARGV[4] ~= '' then
  add_page(KEYS[5], KEYS[6], ' ' .. ARGV[4], ARGV[5])
end
return 1
