-- Returns what the leader has announced, under its present term; leaves a mark of who
-- asks because it stands by.
--
-- KEYS  1 lead      text "<number> <nonce> <holder>", expires with the lead
--       2 config    hash: "term" as "<number> <nonce> ", "digest", "entries"
--       3 standbys  hash: holder -> "<ms> <digest>", by the server's clock
-- ARGV  1 a digest
--       2 who stands by; empty: nobody, nothing is written
--       3 the digest of its entries  4 ms for which the mark lasts
--
-- Returns digest and entries; false if nobody leads, if whoever leads has announced
-- nothing, and if that has this digest. A mark that cannot be written is passed over.

if ARGV[2] ~= '' then
  local now = server_time()
  local found = redis.pcall('HGETALL', KEYS[3])
  for i = 2, #found, 2 do
    local heard = tonumber(found[i]:match('^%d+'))
    if not heard or heard < now - ARGV[4] then
      redis.pcall('HDEL', KEYS[3], found[i - 1])
    end
  end
  redis.pcall('HSET', KEYS[3], ARGV[2], whole(now) .. ' ' .. ARGV[3])
  redis.pcall('PEXPIRE', KEYS[3], ARGV[4])
end

local term, digest = unpack(redis.call('HMGET', KEYS[2], 'term', 'digest'))
if not term or digest == ARGV[1] or not leads(KEYS[1], term) then
  return false
end
return {digest, redis.call('HGET', KEYS[2], 'entries')}
