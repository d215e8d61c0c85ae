#!lua flags=allow-oom
-- Gives a RUNNING job back to its old place in the queue; the attempt does not count. ARGV: id, token. Returns 1, also when it is
-- repeated, or 0 where the job is not the caller's.
local id, token = ARGV[1], ARGV[2]
local k = key(id)
local r = redis.call('HMGET', k, 'state', 'token', 'flow', 'sequence', 'released')
if r[1] == QUEUED_ and r[5] == token then return 1 end
if r[1] ~= RUNNING_ or r[2] ~= token then return 0 end
redis.call('HSET', k, 'token', '', 'released', token)
redis.call('HINCRBY', k, 'attempts', -1)
redis.call('ZREM', RUNNING, id)
enqueue(r[3], id, r[4])
set_state(id, QUEUED_)
return 1
