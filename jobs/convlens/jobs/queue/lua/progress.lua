#!lua flags=allow-oom
-- include: records
-- Records the progress of a job for the worker that holds it.
-- KEYS: none. Options: id, token (of the claim), progress (text, 0…1). Returns 1, or 0 if the job is not the worker's any more.
local state, holder = unpack(redis.call('HMGET', job_key(options.id), 'state', 'token'))
if state ~= STATE.RUNNING or holder ~= options.token then return 0 end
set_state(options.id, STATE.RUNNING, 'progress', options.progress)
return 1
