-- Releases a mutex, if it is still held under this token.
--
-- KEYS  1 mutex  text: the token
-- ARGV  1 token

if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
