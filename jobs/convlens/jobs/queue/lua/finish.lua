#!lua flags=allow-oom
-- Ends jobs for the worker that holds them. ARGV: result_ttl, answered_ttl, then for each job id, token, state, reason,
-- message, field, result_bytes, header_size. Returns for each 1 when this worker's word counts, also when it is repeated,
-- else 0; and some payloads that nobody needs any more, the jobs' images mostly among them, for the caller to get rid of.
local ttls = {result = tonumber(ARGV[1]), answered = tonumber(ARGV[2])}
local now, done = clock(), {}

local function ends(id, token, state, reason, message, field, bytes, header_size)
  local r = redis.call('HMGET', key(id), 'state', 'token', 'deadline')
  if not r[1] and state == SUCCEEDED_ then return redis.call('EXISTS', result_of(token)) end -- repeated, the record gone since
  if r[2] ~= token then return 0 end
  if r[1] == state then return 1 end
  if r[1] ~= RUNNING_ then return 0 end
  if number(r[3]) <= now then
    finish(id, now, EXPIRED_, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was running'},
           nil, ttls)
    return 0
  end
  finish(id, now, state, {reason = reason, message = message, field = field},
         {result = token, result_bytes = tonumber(bytes), header_size = tonumber(header_size), cached = 0}, ttls)
  return 1
end

for i = 3, #ARGV, 8 do done[#done + 1] = ends(unpack(ARGV, i, i + 7)) end
return {done, redis.call('LPOP', GARBAGE, 64 + #done) or {}}
