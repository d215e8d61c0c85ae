#!lua flags=allow-oom
-- One waiter less. The last one to leave a live job that nobody asked to keep cancels it. ARGV: id, result_ttl,
-- tombstone_ttl.
local id = ARGV[1]
local k = key(id)
local r = redis.call('HMGET', k, 'state', 'keep')
if not r[1] then return 0 end
if redis.call('HINCRBY', k, 'waiters', -1) <= 0 and r[2] == '0' and is_live(r[1]) then
  finish(id, clock(), CANCELLED_, 'ABANDONED', 'everybody who waited for the job went away', '', tonumber(ARGV[2]),
         tonumber(ARGV[3]))
end
return 1
