-- Removes pages of the history whose records are in rows by now.
--
-- KEYS  1 lead     text "<number> <nonce> <holder>", expires with the lead
--       2 pages    list: what each batch of emissions did
--       3 history  hash: entry -> records; field "\255": the number of the last page
-- ARGV  1 term as "<number> <nonce> "  2 the number of the last page to remove
--       3 number n of rows to set
--       4...  n entries, each followed by its records; then entries to remove
--
-- Returns 1; or 0, having done nothing, if the term is over. Without such a page nothing
-- is done: a later request has folded more.

if not leads(KEYS[1], ARGV[1]) then
  return 0
end
local last = tonumber(redis.call('HGET', KEYS[3], '\255') or 0)
local number = tonumber(ARGV[2]) - last + redis.call('LLEN', KEYS[2])
if number <= 0 then
  return 1
end
local CHUNK = 1000 -- Lua passes only so many arguments at once
local gone = 4 + 2 * tonumber(ARGV[3])
for from = gone, #ARGV, CHUNK do
  redis.call('HDEL', KEYS[3], unpack(ARGV, from, math.min(from + CHUNK - 1, #ARGV)))
end
for from = 4, gone - 1, CHUNK do
  redis.call('HSET', KEYS[3], unpack(ARGV, from, math.min(from + CHUNK, gone) - 1))
end
redis.call('LTRIM', KEYS[2], number, -1)
return 1
