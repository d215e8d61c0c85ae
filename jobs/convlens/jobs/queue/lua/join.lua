#!lua flags=allow-oom
-- A waiter joins a job, and wants to hear of every change. ARGV: id, the waiter's name. Returns 0 for an id that is not known.
local id, waiter = ARGV[1], ARGV[2]
if redis.call('EXISTS', key(id)) == 0 then return 0 end
join(id, waiter)
redis.call('HSET', key(id), 'watched', '1')
return 1
