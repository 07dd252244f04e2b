-- Gives the lead back and wakes the standbys that wait for it.
--
-- KEYS  1 lead      text "<number> <nonce> <holder>", expires with the lead
--       2 resigned  the last term that was given back, as "<number> <nonce> "
-- ARGV  1 term as "<number> <nonce> "  2 channel on which standbys listen
--
-- Does nothing if the term is over.

if leads(KEYS[1], ARGV[1]) then
  redis.call('DEL', KEYS[1])
  -- A server that is full refuses this; the next leader is then late, and careful.
  redis.pcall('SET', KEYS[2], ARGV[1])
  -- Last, and passed over if it is not permitted: standbys also look by themselves.
  redis.pcall('PUBLISH', ARGV[2], 'free')
end
