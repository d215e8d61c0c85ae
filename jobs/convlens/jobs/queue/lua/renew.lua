#!lua flags=allow-oom
-- Renews the leases of running jobs.
-- KEYS: none. Options: lease (ms), claims (a list of id, token pairs). Returns the ids that are not the worker's any more.
local expires, lost = text(clock() + options.lease), {}
for _, claim in ipairs(options.claims) do
  local id, token = claim[1], claim[2]
  local state, holder = unpack(redis.call('HMGET', job_key(id), 'state', 'token'))
  if state == STATE.RUNNING and holder == token then
    redis.call('ZADD', RUNNING, expires, id)
  else
    lost[#lost + 1] = id
  end
end
return lost
