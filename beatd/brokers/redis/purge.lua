-- Removes lists.
--
-- KEYS  lists
--
-- Returns the number of messages that were in them.

local found = 0
for _, list in ipairs(KEYS) do
  found = found + redis.call('LLEN', list)
  redis.call('UNLINK', list)
end
return found
