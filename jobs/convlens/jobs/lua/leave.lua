#!lua flags=allow-oom
-- One waiter less for each of some jobs. After the last one, what nobody asked to keep goes: a live job is cancelled, a
-- result only answers equal requests any more. ARGV: result_ttl, tombstone_ttl, then ids.
local ttls = {result = tonumber(ARGV[1]), tombstone = tonumber(ARGV[2])}
local now = clock()
for i = 3, #ARGV do
  local id = ARGV[i]
  local k = key(id)
  local r = redis.call('HMGET', k, 'state', 'keep', 'result', 'held')
  if r[1] and redis.call('HINCRBY', k, 'waiters', -1) <= 0 and r[2] == '0' then
    if is_live(r[1]) then
      finish(id, now, CANCELLED_, {reason = 'ABANDONED', message = 'everybody who waited for the job went away'}, nil,
             ttls)
    elseif r[4] == '1' then
      redis.call('HSET', k, 'held', '0')
      release_result(r[3], now)
    end
  end
end
return 1
