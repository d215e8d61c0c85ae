#!lua flags=allow-oom
-- Looks at some of the jobs known, latest first, and puts each back where its record says that it belongs, should an index have
-- been lost: so every job still ends. ARGV: the sequence number below which to go on, or +inf; limit, lease, tombstone_ttl. Returns
-- the sequence number to go on from, +inf when all have been looked at.
local before, limit, lease, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), clock()
if before ~= '+inf' then before = '(' .. before end
local found = redis.call('ZRANGE', JOBS, before, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, limit, 'WITHSCORES')

for i = 1, #found, 2 do
  local id = found[i]
  local r = redis.call('HMGET', key(id), 'state', 'deadline', 'leader', 'flow', 'sequence', 'count', 'expires')
  if not r[1] then
    redis.call('ZREM', JOBS, id)
  elseif is_live(r[1]) then
    redis.call('ZADD', DEADLINES, 'NX', text(number(r[2])), id)
    if r[1] == RUNNING_ and not r[3] then
      redis.call('ZADD', RUNNING, 'NX', text(now + lease), id)
    elseif r[1] == QUEUED_ and not r[3] and r[4] and not (redis.call('ZSCORE', queued(r[4]), id) and
                                                          redis.call('ZSCORE', flows(pool_of(r[4])), r[4])) then
      enqueue(r[4], id, text(number(r[5])), number(r[6]), now)
    end
  elseif r[7] then
    redis.call('ZADD', FORGET, 'NX', text(number(r[7]) + tonumber(ARGV[4])), id)
  end
end
return #found == 2 * limit and found[#found] or '+inf'
