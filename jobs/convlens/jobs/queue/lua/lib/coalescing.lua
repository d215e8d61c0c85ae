-- include: flows records
-- Coalescing: equal requests under way are a group, a sorted set by sequence number. The first is the primary, which is computed;
-- the others are coalesced: they wait in no flow and end with it. When the primary is cancelled, the next one is promoted.

-- The primary of a group; jobs whose record was lost are removed.
local function primary_of(group)
  while true do
    local primary = redis.call('ZRANGE', group, 0, 0)[1]
    if not primary or redis.call('EXISTS', job_key(primary)) == 1 then return primary end
    redis.call('ZREM', group, primary)
  end
end

-- Adds a job that was just written to the group of its primary.
local function coalesce(id, sequence, primary)
  local p = redis.call('HMGET', job_key(primary), 'group', 'sequence')
  local group = p[1] or sequence
  if not p[1] then
    redis.call('HSET', job_key(primary), 'group', group)
    redis.call('ZADD', group_key(group), p[2], primary)
  end
  redis.call('HSET', job_key(id), 'group', group)
  redis.call('ZADD', group_key(group), sequence, id)
end

-- Makes the next job of a group the primary, if there is one.
local function promote_next(group, key)
  local id = primary_of(group)
  if not id then return end
  local fields = read_fields(id, {'flow', 'sequence'})
  enqueue(fields.flow or '', id, text(number(fields.sequence)))
  redis.call('SET', key, id, 'PX', text(options.result_ttl))
  set_state(id, STATE.QUEUED)
end
