#!lua flags=allow-oom
-- include: coalescing
-- Puts some of the known jobs, latest first, back into the indexes that their records say they belong to, should one have been
-- lost: so that every job still ends.
-- KEYS: none. Options: before (the sequence number to go on below, or +inf), limit (jobs), lease (ms). Returns the sequence
-- number to go on below, +inf after the last job.
local page = redis.call('ZRANGE', JOBS, options.before == '+inf' and '+inf' or '(' .. options.before, '-inf', 'BYSCORE', 'REV',
                        'LIMIT', 0, options.limit, 'WITHSCORES')

-- True for a job that is computed, and not one that is coalesced.
local function is_primary(id, group, sequence)
  if not group then return true end
  redis.call('ZADD', group_key(group), 'NX', text(number(sequence)), id)
  return primary_of(group_key(group)) == id
end

for i = 1, #page, 2 do
  local id = page[i]
  local state, deadline, group, flow, sequence, expires =
    unpack(redis.call('HMGET', job_key(id), 'state', 'deadline', 'group', 'flow', 'sequence', 'expires'))
  if not state then
    redis.call('ZREM', JOBS, id)
  elseif is_live(state) then
    redis.call('ZADD', DEADLINES, 'NX', text(number(deadline)), id)
    if not is_primary(id, group, sequence) then
      -- it is in no flow
    elseif state == STATE.RUNNING then
      redis.call('ZADD', RUNNING, 'NX', text(clock() + options.lease), id)
    elseif flow and not (redis.call('ZSCORE', queued_key(flow), id) and redis.call('ZSCORE', flows_key(pool_of(flow)), flow)) then
      enqueue(flow, id, text(number(sequence)))
    end
  elseif expires and not (redis.call('ZSCORE', KEPT, id) or redis.call('ZSCORE', TOMBSTONES, id) or
                          redis.call('ZSCORE', ANSWERED, id)) then
    redis.call('ZADD', KEPT, text(number(expires)), id)
  end
end
return #page == 2 * options.limit and page[#page] or '+inf'
