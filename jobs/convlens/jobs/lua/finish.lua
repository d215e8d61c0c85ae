#!lua flags=allow-oom
-- Ends a job for the worker that holds it. ARGV: id, token, state, reason, message, field, result_bytes, header_size,
-- result_ttl, tombstone_ttl. Returns 1 when this worker's word counts, also when it is repeated, else 0; then some payloads
-- that nobody needs any more, the job's images mostly among them, for the caller to get rid of.
local id, token, state, reason, message, field, bytes, header_size, result_ttl, tombstone_ttl = unpack(ARGV)
local ttls = {result = tonumber(result_ttl), tombstone = tonumber(tombstone_ttl)}
local r = redis.call('HMGET', key(id), 'state', 'token', 'deadline')
if r[2] ~= token then return {0} end
if r[1] == state then return {1} end
if r[1] ~= RUNNING_ then return {0} end
local now = clock()
if tonumber(r[3]) <= now then
  finish(id, now, EXPIRED_, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was running'},
         nil, ttls)
  return {0}
end
finish(id, now, state, {reason = reason, message = message, field = field},
       {result = token, result_bytes = tonumber(bytes), header_size = tonumber(header_size), cached = 0}, ttls)
local done = redis.call('LPOP', GARBAGE, 64) or {}
table.insert(done, 1, 1)
return done
