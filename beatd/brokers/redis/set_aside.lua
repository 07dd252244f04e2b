-- Keeps keys of beatd's own under other names that are of a type that beatd never gave
-- them, or no number where they have to be one.
--
-- KEYS  pairs: the key, and where to keep it
-- ARGV  the type of each: hash, zset, string, or number: a string that is a whole number
--
-- Returns the keys that are now kept elsewhere.

local odd = {}
for at = 1, #KEYS, 2 do
  local wanted = ARGV[(at + 1) / 2]
  local kind = redis.call('TYPE', KEYS[at]).ok
  local fine = kind == 'none' or kind == wanted
  if kind == 'string' and wanted == 'number' then
    fine = redis.call('GET', KEYS[at]):match('^%d+$')
  end
  if not fine then
    redis.call('RENAME', KEYS[at], KEYS[at + 1])
    odd[#odd + 1] = KEYS[at]
  end
end
return odd
