#!lua flags=allow-oom
-- Ends a job for the worker that holds it. ARGV: id, token, state, reason, message, field, result_bytes, header_size,
-- header_crc, result_ttl, tombstone_ttl. Returns 1 when this worker's word counts, also when it is repeated; else 0.
local id, token, state, reason, message, field, bytes, header_size, header_crc, result_ttl, tombstone_ttl = unpack(ARGV)
local k = key(id)
local r = redis.call('HMGET', k, 'state', 'token', 'deadline')
if r[2] ~= token then return 0 end
if r[1] == state then return 1 end
if r[1] ~= RUNNING_ then return 0 end
local now = clock()
if tonumber(r[3]) <= now then
  finish(id, now, EXPIRED_, 'DEADLINE_EXCEEDED', 'the deadline passed while the job was running', '',
         tonumber(result_ttl), tonumber(tombstone_ttl))
  return 0
end
redis.call('HSET', k, 'result_bytes', bytes, 'header_size', header_size, 'header_crc', header_crc)
finish(id, now, state, reason, message, field, tonumber(result_ttl), tonumber(tombstone_ttl))
return 1
