#!lua flags=allow-oom
-- include: finish
-- Ends a live job as CANCELLED; an ended one stays as it is.
-- KEYS: none. Options: id, result_ttl and answered_ttl (ms). Returns the record.
if is_live(redis.call('HGET', job_key(options.id), 'state')) then
  finish(options.id, STATE.CANCELLED, {reason = 'CANCELLED', message = 'the job was cancelled'})
end
return read_record(options.id)
