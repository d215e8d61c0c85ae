#!lua flags=allow-oom
-- Ends a live job as CANCELLED; leaves an ended one as it is. ARGV: id, result_ttl, tombstone_ttl.
local id = ARGV[1]
if is_live(redis.call('HGET', key(id), 'state')) then
  finish(id, clock(), CANCELLED_, 'CANCELLED', 'the job was cancelled', '', tonumber(ARGV[2]), tonumber(ARGV[3]))
end
return 1
