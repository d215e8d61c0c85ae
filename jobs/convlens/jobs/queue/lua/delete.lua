#!lua flags=allow-oom
-- include: records results
-- Deletes an ended job, and its result unless other records refer to it.
-- KEYS: none. Options: id, created (ms; a job that was created anew under the id stays). Returns 0 while the job is live, else 1.
local id = options.id
local state, created, result, holds_result = unpack(redis.call('HMGET', job_key(id), 'state', 'created', 'result', 'holds_result'))
if created ~= text(options.created) then return 1 end
if is_live(state) then return 0 end
if result then
  local refs = holds_result == '1' and release_result(result) or number(redis.call('HGET', result_key(result), 'refs'))
  if refs <= 0 then
    delete_result(result)
    redis.call('RPUSH', GARBAGE, result)
  end
end
forget(id)
return 1
