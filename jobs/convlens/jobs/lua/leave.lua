#!lua flags=allow-oom
-- One waiter less. After the last one, what nobody asked to keep goes: a live job is cancelled, a result only answers equal
-- requests any more. ARGV: id, result_ttl, tombstone_ttl.
local id = ARGV[1]
local k = key(id)
local r = redis.call('HMGET', k, 'state', 'keep', 'result', 'held')
if not r[1] then return 0 end
if redis.call('HINCRBY', k, 'waiters', -1) <= 0 and r[2] == '0' then
  local now = clock()
  if is_live(r[1]) then
    finish(id, now, CANCELLED_, {reason = 'ABANDONED', message = 'everybody who waited for the job went away'}, nil,
           {result = tonumber(ARGV[2]), tombstone = tonumber(ARGV[3])})
  elseif r[4] == '1' then
    redis.call('HSET', k, 'held', '0')
    release_result(r[3], now)
  end
end
return 1
