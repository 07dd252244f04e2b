-- Holds the lead for longer.
--
-- KEYS  1 lead  text "<number> <nonce> <holder>", expires with the lead
-- ARGV  1 term as "<number> <nonce> "  2 ttl in ms
--
-- Returns 1, or 0 if the term is over.

if not leads(KEYS[1], ARGV[1]) then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
