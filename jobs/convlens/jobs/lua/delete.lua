#!lua flags=allow-oom
-- Forgets an ended job. ARGV: id. Returns 1, or 0 while it is live.
local id = ARGV[1]
local r = redis.call('HMGET', key(id), 'state', 'result', 'tenant', 'fingerprint', 'held', 'flow')
if is_live(r[1]) then return 0 end
if r[2] and (r[5] == '1' and release_result(r[2], clock()) or tonumber(redis.call('HGET', RESULT_REFS, r[2]) or 0)) <= 0 then
  drop_result(r[2])
  redis.call('RPUSH', GARBAGE, r[2])
end
local leads = r[4] and same(pool_of(r[6]), r[4])
if leads and redis.call('GET', leads) == id then redis.call('DEL', leads) end
redis.call('DEL', key(id))
redis.call('ZREM', JOBS, id)
redis.call('ZREM', jobs_of(r[3] or ''), id)
redis.call('ZREM', FORGET, id)
return 1
