-- Writes and removes notes of one book.
--
-- KEYS  1 lead   text "<number> <nonce> <holder>", expires with the lead
--       2 notes  hash: name -> note
-- ARGV  1 term as "<number> <nonce> "; empty: under no term
--       2 number n of notes to set
--       3...  n names, each followed by its note; then names to remove
--
-- Returns 1; or 0, having done nothing, if the term is over.

if ARGV[1] ~= '' and not leads(KEYS[1], ARGV[1]) then
  return 0
end
local CHUNK = 1000 -- Lua passes only so many arguments at once
local gone = 3 + 2 * tonumber(ARGV[2])
for from = gone, #ARGV, CHUNK do
  redis.call('HDEL', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK - 1, #ARGV)))
end
for from = 3, gone - 1, CHUNK do
  redis.call('HSET', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK, gone) - 1))
end
return 1
