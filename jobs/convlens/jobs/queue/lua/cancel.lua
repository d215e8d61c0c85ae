#!lua flags=allow-oom
-- Ends a live job as CANCELLED; leaves an ended one as it is. ARGV: id, result_ttl, answered_ttl.
local id = ARGV[1]
if is_live(redis.call('HGET', key(id), 'state')) then
  finish(id, clock(), CANCELLED_, {reason = 'CANCELLED', message = 'the job was cancelled'}, nil,
         {result = tonumber(ARGV[2]), answered = tonumber(ARGV[3])})
end
return record(id)
