#!lua flags=allow-oom
-- Forgets an ended job. ARGV: id. Returns 1, or 0 while it is live.
local id = ARGV[1]
local r = redis.call('HMGET', key(id), 'state', 'token')
if is_live(r[1]) then return 0 end
if r[2] and r[2] ~= '' then
  redis.call('RPUSH', GARBAGE, r[2] .. '-header', r[2] .. '-body')
end
redis.call('DEL', key(id))
redis.call('ZREM', JOBS, id)
redis.call('ZREM', FORGET, id)
return 1
