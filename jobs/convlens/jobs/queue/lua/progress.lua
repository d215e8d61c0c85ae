#!lua flags=allow-oom
-- Notes how far a job is for the worker that holds it. ARGV: id, token, progress. Returns 1 when it
-- holds it, else 0.
local id, token, progress = unpack(ARGV)
local k = key(id)
local r = redis.call('HMGET', k, 'state', 'token')
if r[1] ~= RUNNING_ or r[2] ~= token then return 0 end
set_state(id, RUNNING_, 'progress', progress)
return 1
