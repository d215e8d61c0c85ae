-- include: images results records coalescing
-- Ending jobs. Scripts that end jobs take the options result_ttl and answered_ttl: milliseconds that a result and its record are
-- kept, and that a record is kept which nobody asked for.
local ENDING = {'state', 'images', 'reserved', 'pixels', 'record_bytes', 'group', unpack(WITH_RESULT)}

-- Stores a result, or refers to it where it is stored, and returns the bytes that this adds. `key` is the job's dedup key; equal
-- requests find the result by it if the job is the primary.
local function add_result(result, tenant, expires, key, is_primary)
  local name, size = result.name, result.bytes + result.header_size
  if redis.call('HSETNX', result_key(name), 'bytes', text(size)) == 0 then
    hold_result(name)
    return 0
  end
  redis.call('ZADD', RESULTS, expires, name)
  redis.call('HSET', result_key(name), 'tenant', tenant, 'refs', 1, unpack(is_primary and {'dedup_key', key} or {}))
  if is_primary then
    local value = table.concat({name, text(result.bytes), text(result.header_size)}, ' ')
    redis.call('SET', key, value, 'PX', text(options.result_ttl))
  end
  return size
end

-- Ends a live job; the first final state wins, so an ended one stays as it is. `failure` has reason, message and field, or
-- nothing; `result` the payload's name, bytes, header_size and cached, and where it expires earlier than usual, when. Coalesced
-- requests end with their primary, or the next one is promoted.
local function finish(id, state, failure, result)
  local f = read_fields(id, ENDING)
  if not f.state then return discard(id) end
  if not is_live(f.state) then return end
  local now, flow, tenant, group = clock(), f.flow or '', f.tenant or '', f.group and group_key(f.group)
  local key = dedup_key(pool_of(flow), f.fingerprint or '')
  if f.state == STATE.QUEUED then dequeue(flow, id) else redis.call('ZREM', RUNNING, id) end
  redis.call('ZREM', DEADLINES, id)
  count('jobs', tenant, -1)
  count('pixels', tenant, -number(f.pixels))
  count('image_bytes', tenant, -number(f.record_bytes))
  release_images(f.images, tenant)
  ended_jobs = ended_jobs + 1
  local expires = text(result and result.expires or now + options.result_ttl)
  local fields = {'state', state, 'ended', text(now), 'expires', expires}
  for _, name in ipairs({'reason', 'message', 'field'}) do
    if (failure[name] or '') ~= '' then fields[#fields + 1], fields[#fields + 2] = name, failure[name] end
  end
  local notice
  local freed = number(f.reserved)
  local is_primary = redis.call('GET', key) == id
  if state == STATE.SUCCEEDED then
    freed = freed - add_result(result, tenant, expires, key, is_primary)
    for _, value in ipairs({'holds_result', '1', 'result', result.name, 'result_bytes', result.bytes, 'header_size',
                            result.header_size, 'cached', result.cached}) do
      fields[#fields + 1] = value
    end
    notice = table.concat({'', result.name, text(result.bytes), text(result.header_size), result.cached, text(now), expires}, ' ')
  elseif is_primary then
    redis.call('DEL', key)
  end
  rewrite(id, fields, WITH_RESULT, f)
  if freed ~= 0 then count('result_bytes', tenant, -freed) end
  if f.keep == '0' and not f.waiter and not f.more_waiters then
    make_evictable(id, ANSWERED, tenant, text(now), options.answered_ttl)
  else
    redis.call('ZADD', KEPT, expires, id)
  end
  notify(id, state, notice)

  local primary = group and redis.call('ZRANGE', group, 0, 0)[1]
  if group then redis.call('ZREM', group, id) end
  if primary ~= id then return end
  if state ~= STATE.SUCCEEDED and state ~= STATE.FAILED then return promote_next(group, key) end
  local coalesced = redis.call('ZRANGE', group, 0, -1)
  redis.call('DEL', group)
  local shared = result and {name = result.name, bytes = result.bytes, header_size = result.header_size, cached = 1}
  for _, other in ipairs(coalesced) do finish(other, state, failure, shared) end
end

-- Ends a job whose deadline passed while it was `doing`: queued or running.
local function expire(id, doing)
  finish(id, STATE.EXPIRED, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was ' .. doing})
end

-- Ends a job whose record cannot be parsed.
local function fail_damaged(id)
  finish(id, STATE.FAILED, {reason = 'INTERNAL', message = "the job's record is damaged; submit the job again"})
  quarantine('record', id, 'is damaged')
end
