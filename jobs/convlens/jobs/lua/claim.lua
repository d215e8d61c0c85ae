#!lua flags=allow-oom
-- Takes the QUEUED ones of some jobs for a worker. ARGV: worker, lease, result_ttl, tombstone_ttl, then id, token pairs.
-- Returns the ids taken. A replay finds its own token and takes the job once.
local worker, lease, result_ttl, tombstone_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now, taken = clock(), {}
for i = 5, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local k = key(id)
  local r = redis.call('HMGET', k, 'state', 'token', 'deadline', 'queue', 'published')
  if r[1] == RUNNING_ and r[2] == token then
    taken[#taken + 1] = id
  elseif r[1] == QUEUED_ then
    if tonumber(r[3]) <= now then
      finish(id, now, EXPIRED_, 'DEADLINE_EXCEEDED', 'the deadline passed while the job was queued', '', result_ttl,
             tombstone_ttl)
    else
      redis.call('HSET', k, 'state', RUNNING_, 'token', token, 'worker', worker, 'started', text(now), 'progress', '')
      redis.call('HINCRBY', k, 'attempts', 1)
      redis.call('ZREM', queued(r[4]), id)
      redis.call('ZADD', RUNNING, text(now + lease), id)
      redis.call('HSET', CLAIMED, r[4], r[5])
      notify(id, RUNNING_)
      taken[#taken + 1] = id
    end
  end
end
return taken
