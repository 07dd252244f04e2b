-- Returns what the leader has announced, under its present term.
--
-- KEYS  1 lead    text "<number> <nonce> <holder>", expires with the lead
--       2 config  hash: "term" as "<number> <nonce> ", "digest", "entries"
-- ARGV  1 a digest
--
-- Returns digest and entries; false if nobody leads, if whoever leads has announced
-- nothing, and if that has this digest.

local term, digest = unpack(redis.call('HMGET', KEYS[2], 'term', 'digest'))
if not term or digest == ARGV[1] or not leads(KEYS[1], term) then
  return false
end
return {digest, redis.call('HGET', KEYS[2], 'entries')}
