-- Tells other schedulers what the leader emits.
--
-- KEYS  1 lead    text "<number> <nonce> <holder>", expires with the lead
--       2 config  hash: "term" as "<number> <nonce> ", "digest", "entries"
-- ARGV  1 term as "<number> <nonce> "  2 digest  3 entries
--
-- Returns 1; or 0, having done nothing, if the term is over.

if not leads(KEYS[1], ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[2], 'term', ARGV[1], 'digest', ARGV[2], 'entries', ARGV[3])
return 1
