-- Finds workers whose lease lasts.
--
-- KEYS  1 workers  sorted set: worker -> end of its lease, ms of the server's clock
--
-- Returns their names.

return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. whole(server_time()), '+inf')
