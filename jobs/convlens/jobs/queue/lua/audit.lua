#!lua flags=allow-oom
-- Looks at some of the jobs known, latest first, and puts each back where its record says that it belongs, should an index have
-- been lost: so every job still ends. ARGV: the sequence number below which to go on, or +inf; limit, lease. Returns the sequence
-- number to go on from, +inf when all have been looked at.
local before, limit, lease, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), clock()
if before ~= '+inf' then before = '(' .. before end
local found = redis.call('ZRANGE', JOBS, before, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, limit, 'WITHSCORES')

-- True for a job that is computed, and not one that follows an equal one.
local function leads(id, group, sequence)
  if not group then return true end
  redis.call('ZADD', group_of(group), 'NX', text(number(sequence)), id)
  return first_of(group_of(group)) == id
end

for i = 1, #found, 2 do
  local id = found[i]
  local r = redis.call('HMGET', key(id), 'state', 'deadline', 'group', 'flow', 'sequence', 'expires')
  if not r[1] then
    redis.call('ZREM', JOBS, id)
  elseif is_live(r[1]) then
    redis.call('ZADD', DEADLINES, 'NX', text(number(r[2])), id)
    if not leads(id, r[3], r[5]) then
      -- its leader's place is its own
    elseif r[1] == RUNNING_ then
      redis.call('ZADD', RUNNING, 'NX', text(now + lease), id)
    elseif r[4] and not (redis.call('ZSCORE', queued(r[4]), id) and redis.call('ZSCORE', flows(pool_of(r[4])), r[4])) then
      enqueue(r[4], id, text(number(r[5])))
    end
  elseif r[6] and not (redis.call('ZSCORE', KEPT, id) or redis.call('ZSCORE', TOMBSTONES, id) or
                       redis.call('ZSCORE', ANSWERED, id)) then
    redis.call('ZADD', KEPT, text(number(r[6])), id)
  end
end
return #found == 2 * limit and found[#found] or '+inf'
