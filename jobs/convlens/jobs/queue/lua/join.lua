#!lua flags=allow-oom
-- include: waiters
-- Adds a waiter to a job, and has every change of the job published from now on.
-- KEYS: none. Options: id, waiter (a unique name). Returns 1, or 0 for an unknown id.
if redis.call('EXISTS', job_key(options.id)) == 0 then return 0 end
join(options.id, options.waiter)
redis.call('HSET', job_key(options.id), 'notify_changes', '1')
return 1
