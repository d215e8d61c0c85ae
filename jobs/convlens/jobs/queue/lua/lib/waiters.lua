-- include: finish
-- Waiters: the calls that wait for a job. Each has a name of its own, so that none leaves twice, or leaves a job that it did not
-- join. The record has the name of the first; a set has those that join while that one waits (`more_waiters` is 1 then).

-- Undoes make_evictable for an answered job that a caller wants again, with its result if that is still there.
local function keep_again(id)
  local r = redis.call('HMGET', job_key(id), 'holds_result', 'result', 'expires', 'tenant')
  if redis.call('ZREM', ANSWERED, id) == 0 then return end
  redis.call('ZADD', KEPT, r[3], id)
  if (r[4] or '') ~= '' then redis.call('ZREM', evictable_key(r[4]), id) end
  if r[2] and r[1] == '0' and redis.call('EXISTS', result_key(r[2])) == 1 then
    hold_result(r[2])
    redis.call('HSET', job_key(id), 'holds_result', '1')
  end
end

-- Adds a waiter.
local function join(id, waiter)
  keep_again(id)
  local first = redis.call('HGET', job_key(id), 'waiter')
  if not first then
    redis.call('HSET', job_key(id), 'waiter', waiter)
  elseif first ~= waiter then
    redis.call('SADD', waiters_key(id), waiter)
    redis.call('HSET', job_key(id), 'more_waiters', '1')
  end
end

-- Removes a waiter. After the last one, a job that nobody asked to keep is cancelled while it is live; once it has ended, its
-- record becomes evictable and its result cached.
local function leave(id, waiter)
  local r = redis.call('HMGET', job_key(id), 'state', 'keep', 'waiter', 'more_waiters', 'holds_result', 'result', 'tenant', 'ended')
  local state, is_kept, first, has_more, has_left = r[1], r[2] == '1', r[3], r[4], false
  if first == waiter then
    redis.call('HDEL', job_key(id), 'waiter')
    has_left, first = true, false
  end
  if has_more then
    has_left = redis.call('SREM', waiters_key(id), waiter) == 1 or has_left
    if redis.call('EXISTS', waiters_key(id)) == 0 then
      redis.call('HDEL', job_key(id), 'more_waiters')
    elseif has_left then
      return
    end
  end
  if not has_left or first or is_kept then return end
  if is_live(state) then
    return finish(id, STATE.CANCELLED, {reason = 'ABANDONED', message = 'everybody who waited for the job went away'})
  end
  if r[5] == '1' then
    redis.call('HSET', job_key(id), 'holds_result', '0')
    release_result(r[6])
  end
  make_evictable(id, ANSWERED, r[7] or '', r[8], options.answered_ttl)
end
