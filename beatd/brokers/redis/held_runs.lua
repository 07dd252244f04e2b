-- Finds runs that a worker holds.
--
-- KEYS  1 in flight  hash: token -> held message (prelude.lua)
-- ARGV  task ids
--
-- Returns those of the task ids whose message is in flight, or whose run has begun.

local asked, found = {}, {}
for _, run in ipairs(ARGV) do
  asked[run] = true
end
for _, token in ipairs(redis.call('HKEYS', KEYS[1])) do
  local _, content = released(redis.call('HGET', KEYS[1], token))
  local run = content
  if content and not token:find('^begun:') then
    _, run = run_of(content)
  end
  if run and asked[run] then
    found[#found + 1] = run
  end
end
return found
