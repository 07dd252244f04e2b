-- Returns pages of the history, the oldest first, and its rows, as of one moment.
--
-- KEYS  1 pages    list: what each batch of emissions did
--       2 history  hash: entry -> records; field "\255": the number of the last page
-- ARGV  1 how many pages at most  2 "1" to have the rows, too
--
-- Returns the number of the first page, or of the next one to come; the pages; the rows
-- as pairs of entry and records.

local last = tonumber(redis.call('HGET', KEYS[2], '\255') or 0)
local first = last - redis.call('LLEN', KEYS[1]) + 1
local pages = redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)
return {first, pages, ARGV[2] == '1' and redis.call('HGETALL', KEYS[2]) or {}}
