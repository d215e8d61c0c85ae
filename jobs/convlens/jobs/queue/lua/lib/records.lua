-- Records from the job's end on, the groups of equal jobs, and who waits for a job.

-- Forgets an ended job.
local function forget(id)
  local tenant = redis.call('HGET', key(id), 'tenant') or ''
  redis.call('DEL', key(id), waiters(id))
  for _, it in ipairs({JOBS, KEPT, TOMBSTONES, ANSWERED}) do redis.call('ZREM', it, id) end
  if tenant ~= '' then
    redis.call('ZREM', jobs_of(tenant), id)
    redis.call('ZREM', droppable(tenant), id)
  end
end

-- Lets an ended record be forgotten at a time, or sooner where its room is needed.
local function let_go(id, index, tenant, ended_at, forget_at)
  redis.call('ZREM', KEPT, id)
  redis.call('ZADD', index, text(forget_at), id)
  if tenant ~= '' then redis.call('ZADD', droppable(tenant), ended_at, id) end
end

-- What a record is as long as it is there, and what it is while its result is, too. All else is needed by live jobs alone.
local LASTING = {'fingerprint', 'keep', 'model', 'tenant', 'priority', 'count', 'request_id', 'created', 'deadline', 'attempts',
                 'started', 'progress'}
local WITH_RESULT = {'waiter', 'shared', 'nonce', 'flow', 'token', unpack(LASTING)}
local ENDING = {'state', 'images', 'reserved', 'pixels', 'record_bytes', 'group', unpack(WITH_RESULT)}

-- A record's fields by their names, those alone that have a value.
local function read_fields(id, names)
  local found = {}
  for i, value in ipairs(redis.call('HMGET', key(id), unpack(names))) do
    if value and value ~= '' then found[names[i]] = value end
  end
  return found
end

-- Writes a record anew, of `fields` and those of `names` that were `found`: in the compact form that a hash loses for good once
-- a value in it was long.
local function rewrite(id, fields, names, found)
  for _, name in ipairs(names) do
    if found[name] then fields[#fields + 1], fields[#fields + 2] = name, found[name] end
  end
  redis.call('DEL', key(id))
  redis.call('HSET', key(id), unpack(fields))
end

-- The first job of a group: the one that is computed. One whose record was lost is not in the way.
local function first_of(group)
  while true do
    local first = redis.call('ZRANGE', group, 0, 0)[1]
    if not first or redis.call('EXISTS', key(first)) == 1 then return first end
    redis.call('ZREM', group, first)
  end
end

-- Ends a live job: the first final state wins, so one that has ended is left as it is. `result` is a table of the record's
-- fields about it. Equal requests that follow this job end with it, or one of them takes its place.
--
-- A group is equal jobs under way, a sorted set by sequence: the first is computed, and the others follow it.
local function finish(id, now, state, why, result, ttls)
  local f = read_fields(id, ENDING)
  if not f.state then return discard(id) end
  if not is_live(f.state) then return end
  local flow, tenant, group = f.flow or '', f.tenant or '', f.group and group_of(f.group)
  local leads = same(pool_of(flow), f.fingerprint or '')
  if f.state == QUEUED_ then dequeue(flow, id) else redis.call('ZREM', RUNNING, id) end
  redis.call('ZREM', DEADLINES, id)
  count('jobs', tenant, -1)
  count('pixels', tenant, -number(f.pixels))
  count('image_bytes', tenant, -number(f.record_bytes))
  drop_images(f.images, tenant)
  ended = ended + 1
  local expires = text(now + ttls.result)
  local fields = {'state', state, 'ended', text(now), 'expires', expires}
  for _, name in ipairs({'reason', 'message', 'field'}) do
    if (why[name] or '') ~= '' then fields[#fields + 1], fields[#fields + 2] = name, why[name] end
  end
  local told
  local freed = number(f.reserved)
  local leader = redis.call('GET', leads)
  if state == SUCCEEDED_ then
    local name, size = result.result, result.result_bytes + result.header_size
    local found = table.concat({name, text(result.result_bytes), text(result.header_size)}, ' ')
    if redis.call('HSETNX', result_of(name), 'bytes', text(size)) == 1 then
      redis.call('ZADD', RESULTS, expires, name)
      redis.call('HSET', result_of(name), 'tenant', tenant, 'refs', 1, unpack(leader == id and {'same', leads} or {}))
      if leader == id then redis.call('SET', leads, found, 'PX', text(ttls.result)) end
      freed = freed - size
    else
      hold_result(name)
    end
    for _, it in ipairs({'held', '1', 'result', name, 'result_bytes', result.result_bytes, 'header_size',
                         result.header_size, 'cached', result.cached}) do
      fields[#fields + 1] = it
    end
    told = table.concat({'', found, result.cached, text(now), expires}, ' ')
  elseif leader == id then
    redis.call('DEL', leads)
  end
  rewrite(id, fields, WITH_RESULT, f)
  if freed ~= 0 then count('result_bytes', tenant, -freed) end
  if f.keep == '0' and not f.waiter and not f.shared then
    let_go(id, ANSWERED, tenant, text(now), now + ttls.answered)
  else
    redis.call('ZADD', KEPT, expires, id)
  end
  notify(id, state, told)

  local first = group and redis.call('ZRANGE', group, 0, 0)[1]
  if group then redis.call('ZREM', group, id) end
  if first ~= id then return end
  if state == SUCCEEDED_ or state == FAILED_ then
    local rest = redis.call('ZRANGE', group, 0, -1)
    redis.call('DEL', group)
    local shared = result and {result = result.result, result_bytes = result.result_bytes, header_size = result.header_size,
                               cached = 1}
    for _, other in ipairs(rest) do finish(other, now, state, why, shared, ttls) end
    return
  end
  local heir = first_of(group)
  if not heir then return end
  local h = read_fields(heir, {'flow', 'sequence'})
  enqueue(h.flow or '', heir, text(number(h.sequence)))
  redis.call('SET', leads, heir, 'PX', text(ttls.result))
  set_state(heir, QUEUED_)
end

-- The record as it is now: a hash's fields and values, and for a QUEUED one either its `position` in its queue or what it has
-- of the equal job that it follows.
local function record(id)
  local r, f = redis.call('HGETALL', key(id)), {}
  for i = 1, #r, 2 do f[r[i]] = r[i + 1] end
  if f.state ~= QUEUED_ then return r end
  local about = {}
  local leader = f.group and redis.call('ZRANGE', group_of(f.group), 0, 0)[1]
  if leader and leader ~= id then
    local l = redis.call('HMGET', key(leader), 'state', 'started', 'progress')
    about = {'leader', leader, 'state', l[1] or QUEUED_, 'started', l[2] or '', 'progress', l[3] or ''}
  else
    local position = redis.call('ZRANK', queued(f.flow), id)
    if position then about = {'position', text(position)} end
  end
  for _, it in ipairs(about) do r[#r + 1] = it end
  return r
end

-- An ended record that was to be forgotten soon is wanted after all, and its result if that is still there.
local function want_again(id)
  local r = redis.call('HMGET', key(id), 'held', 'result', 'expires', 'tenant')
  if redis.call('ZREM', ANSWERED, id) == 0 then return end
  redis.call('ZADD', KEPT, r[3], id)
  if (r[4] or '') ~= '' then redis.call('ZREM', droppable(r[4]), id) end
  if r[2] and r[1] == '0' and redis.call('EXISTS', result_of(r[2])) == 1 then
    hold_result(r[2])
    redis.call('HSET', key(id), 'held', '1')
  end
end

-- Waiters have names, so that nobody leaves twice, or leaves a job that is not the one it joined. Mostly a job has one, whose
-- name is in the record; those that come while it is there are in a set, and the record is marked as shared.
local function join(id, waiter)
  local k = key(id)
  want_again(id)
  local first = redis.call('HGET', k, 'waiter')
  if not first then
    redis.call('HSET', k, 'waiter', waiter)
  elseif first ~= waiter then
    redis.call('SADD', waiters(id), waiter)
    redis.call('HSET', k, 'shared', '1')
  end
end

-- A waiter leaves. After the last one, what nobody asked to keep goes: a live job is cancelled, and an ended one's record is
-- soon forgotten, while its result only answers equal requests any more.
local function leave(id, waiter, now, ttls)
  local k = key(id)
  local r = redis.call('HMGET', k, 'state', 'keep', 'waiter', 'shared', 'held', 'result', 'tenant', 'ended')
  local left = false
  if r[3] == waiter then
    redis.call('HDEL', k, 'waiter')
    left, r[3] = true, false
  end
  if r[4] then
    left = redis.call('SREM', waiters(id), waiter) == 1 or left
    if redis.call('EXISTS', waiters(id)) == 0 then
      redis.call('HDEL', k, 'shared')
    elseif left then
      return
    end
  end
  if not left or r[3] or r[2] == '1' then return end
  if is_live(r[1]) then
    finish(id, now, CANCELLED_, {reason = 'ABANDONED', message = 'everybody who waited for the job went away'}, nil, ttls)
    return
  end
  if r[5] == '1' then
    redis.call('HSET', k, 'held', '0')
    release_result(r[6], now)
  end
  let_go(id, ANSWERED, r[7] or '', r[8], now + ttls.answered)
end
