-- Finds out whether our user may put messages on a place.
--
-- KEYS  1 a list or a channel: the server itself refuses a script whose key is forbidden
-- ARGV  1 "channel", or anything else for a list
--
-- Returns true, or the server's refusal. Servers before 7.0 do not tell of channels.

if ARGV[1] == 'channel' and redis.acl_check_cmd then
  if not redis.acl_check_cmd('PUBLISH', KEYS[1], '') then
    return redis.error_reply('NOPERM no permission to publish on channel ' .. KEYS[1])
  end
end
return true
