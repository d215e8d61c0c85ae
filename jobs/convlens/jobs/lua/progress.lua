#!lua flags=allow-oom
-- Notes how far a job, and who follows it, is for the worker that holds it. ARGV: id, token, progress. Returns 1 when it
-- holds it, else 0.
local id, token, progress = unpack(ARGV)
local k = key(id)
local r = redis.call('HMGET', k, 'state', 'token')
if r[1] ~= RUNNING_ or r[2] ~= token then return 0 end
tell(id, RUNNING_, 'progress', progress)
return 1
