-- Job records: states, notifications, the record as callers read it, and how an ended one is kept and deleted.

local function is_live(state) return state == STATE.QUEUED or state == STATE.RUNNING end

-- Publishes a state: to servers, whose calls wait for the job, and an end that the worker did not make to workers, too.
local function notify(id, state, result)
  redis.call('PUBLISH', NOTICES, id .. ' ' .. state .. (result or ''))
  if state == STATE.CANCELLED or state == STATE.EXPIRED then redis.call('PUBLISH', ENDED, id .. ' ' .. state) end
end

-- Sets a live job's state and other fields.
local function set_state(id, state, ...)
  local notifies_changes = redis.call('HGET', job_key(id), 'notify_changes')
  redis.call('HSET', job_key(id), 'state', state, ...)
  if notifies_changes then notify(id, state) end
end

-- Those of a record's fields that have a value, by name.
local function read_fields(id, names)
  local fields = {}
  for i, value in ipairs(redis.call('HMGET', job_key(id), unpack(names))) do
    if value and value ~= '' then fields[names[i]] = value end
  end
  return fields
end

-- Replaces a record by `entries` (names and values in turn) and those `names` that `fields` has. Writing it anew makes it compact
-- again, which a hash is not once a value in it was long.
local function rewrite(id, entries, names, fields)
  for _, name in ipairs(names) do
    if fields[name] then entries[#entries + 1], entries[#entries + 2] = name, fields[name] end
  end
  redis.call('DEL', job_key(id))
  redis.call('HSET', job_key(id), unpack(entries))
end

-- The fields and values of a record, and for a QUEUED job its `position` in its flow, or the state of its primary.
local function read_record(id)
  local record, fields = redis.call('HGETALL', job_key(id)), {}
  for i = 1, #record, 2 do fields[record[i]] = record[i + 1] end
  if fields.state ~= STATE.QUEUED then return record end
  local computed = {}
  local primary = fields.group and redis.call('ZRANGE', group_key(fields.group), 0, 0)[1]
  if primary and primary ~= id then
    local p = redis.call('HMGET', job_key(primary), 'state', 'started', 'progress')
    computed = {'primary', primary, 'state', p[1] or STATE.QUEUED, 'started', p[2] or '', 'progress', p[3] or ''}
  else
    local position = redis.call('ZRANK', queued_key(fields.flow), id)
    if position then computed = {'position', text(position)} end
  end
  for _, value in ipairs(computed) do record[#record + 1] = value end
  return record
end

-- The fields that an ended record keeps, and those that it has while its result is there. Live jobs alone need the others.
local LASTING = {'fingerprint', 'keep', 'model', 'tenant', 'priority', 'count', 'request_id', 'created', 'deadline', 'attempts',
                 'started', 'progress'}
local WITH_RESULT = {'waiter', 'more_waiters', 'nonce', 'flow', 'token', unpack(LASTING)}

-- Deletes the record of an ended job.
local function forget(id)
  local tenant = redis.call('HGET', job_key(id), 'tenant') or ''
  redis.call('DEL', job_key(id), waiters_key(id))
  for _, index in ipairs({JOBS, KEPT, TOMBSTONES, ANSWERED}) do redis.call('ZREM', index, id) end
  if tenant ~= '' then
    redis.call('ZREM', tenant_jobs_key(tenant), id)
    redis.call('ZREM', evictable_key(tenant), id)
  end
end

-- Removes a job that has no record from all indexes.
local function discard(id)
  for _, index in ipairs({JOBS, RUNNING, DEADLINES, KEPT, TOMBSTONES, ANSWERED}) do redis.call('ZREM', index, id) end
  quarantine('job', id, 'has no record')
end

-- Makes an ended record evictable: it goes `ttl` milliseconds from now, or sooner where others need the space. `index` is
-- TOMBSTONES or ANSWERED.
local function make_evictable(id, index, tenant, ended_at, ttl)
  redis.call('ZREM', KEPT, id)
  redis.call('ZADD', index, text(clock() + ttl), id)
  if tenant ~= '' then redis.call('ZADD', evictable_key(tenant), ended_at, id) end
end
