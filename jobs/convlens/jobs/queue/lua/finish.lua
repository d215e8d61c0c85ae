#!lua flags=allow-oom
-- include: finish
-- Ends jobs for the worker that holds them, as SUCCEEDED or FAILED.
-- KEYS: none. Options: result_ttl and answered_ttl (ms), jobs: a list of objects with
--   id, token                  of the claim; the token is the name of the stored result, too
--   state                      a State
--   reason, message, field     if FAILED
--   result_bytes, header_size  if SUCCEEDED
-- Returns for each job 1 if it ended so, also when the call is repeated, or 0 if it was not the worker's any more; and the names
-- of some unused payloads (mostly the jobs' images), for the caller to delete.
local replies = {}

local function end_job(job)
  local id, token, ending = job.id, job.token, text(job.state)
  local state, holder, deadline = unpack(redis.call('HMGET', job_key(id), 'state', 'token', 'deadline'))
  if not state and ending == STATE.SUCCEEDED then return redis.call('EXISTS', result_key(token)) end -- repeated after a while
  if holder ~= token then return 0 end
  if state == ending then return 1 end
  if state ~= STATE.RUNNING then return 0 end
  if number(deadline) <= clock() then
    expire(id, 'running')
    return 0
  end
  finish(id, ending, job, job.result_bytes and {name = token, bytes = job.result_bytes, header_size = job.header_size, cached = 0})
  return 1
end

for i, job in ipairs(options.jobs) do replies[i] = end_job(job) end
return {replies, redis.call('LPOP', GARBAGE, 64 + #replies) or {}}
