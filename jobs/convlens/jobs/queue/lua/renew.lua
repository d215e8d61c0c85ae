#!lua flags=allow-oom
-- Renews leases. ARGV: lease, then id, token pairs. Returns the ids that are no longer the caller's.
local lease, now, lost = tonumber(ARGV[1]), clock(), {}
for i = 2, #ARGV, 2 do
  local r = redis.call('HMGET', key(ARGV[i]), 'state', 'token')
  if r[1] == RUNNING_ and r[2] == ARGV[i + 1] then
    redis.call('ZADD', RUNNING, text(now + lease), ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
