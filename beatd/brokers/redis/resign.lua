-- Gives the lead back and wakes the standbys that wait for it.
--
-- KEYS  1 lead  text "<number> <nonce> <holder>", expires with the lead
-- ARGV  1 term as "<number> <nonce> "  2 channel on which standbys listen
--
-- Does nothing if the term is over.

if leads(KEYS[1], ARGV[1]) then
  redis.call('DEL', KEYS[1])
  -- Last, and passed over if it is not permitted: standbys also look by themselves.
  redis.pcall('PUBLISH', ARGV[2], 'free')
end
