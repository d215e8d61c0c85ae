#!lua flags=allow-oom
-- One waiter more, who wants to hear of every change. ARGV: id. Returns 0 for an id that is not known.
if redis.call('EXISTS', key(ARGV[1])) == 0 then return 0 end
redis.call('HINCRBY', key(ARGV[1]), 'waiters', 1)
redis.call('HSET', key(ARGV[1]), 'watched', '1')
return 1
