#!lua flags=allow-oom
-- include: flows records
-- Returns a RUNNING job to its place in its flow; the attempt does not count.
-- KEYS: none. Options: id, token (of the claim). Returns 1, also when it is repeated, or 0 if the job is not the worker's.
local id, token = options.id, options.token
local state, holder, flow, sequence, released =
  unpack(redis.call('HMGET', job_key(id), 'state', 'token', 'flow', 'sequence', 'released'))
if state == STATE.QUEUED and released == token then return 1 end
if state ~= STATE.RUNNING or holder ~= token then return 0 end
redis.call('HSET', job_key(id), 'token', '', 'released', token)
redis.call('HINCRBY', job_key(id), 'attempts', -1)
redis.call('ZREM', RUNNING, id)
enqueue(flow, id, sequence)
set_state(id, STATE.QUEUED)
return 1
