-- KEYS[1]     celery-taskset-meta-<group>.c, the claim
-- KEYS[2..5]  .j .t .s .d, as in chord_join.lua
-- ARGV        our claim, the seconds for which late copies are ignored
--
-- Deletes a chord if its claim is ours, and marks it as done.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
    redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2])
end
