#!lua flags=allow-oom
-- include: finish
-- Ends live jobs whose deadline has passed, and deletes results and records whose time is over.
-- KEYS: none. Options: limit (of each kind), result_ttl, answered_ttl and tombstone_ttl (ms), bounds (see trim_cache). Returns
-- the largest number of one kind that was due: where that is the limit, there may be more.
local most = 0

local function due(index)
  local ids = redis.call('ZRANGE', index, '-inf', text(clock()), 'BYSCORE', 'LIMIT', 0, options.limit)
  most = math.max(most, #ids)
  return ids
end

for _, id in ipairs(due(DEADLINES)) do
  local state = redis.call('HGET', job_key(id), 'state')
  if is_live(state) then
    expire(id, state == STATE.QUEUED and 'queued' or 'running')
  elseif state then
    redis.call('ZREM', DEADLINES, id)
  else
    discard(id)
  end
end

for _, name in ipairs(due(RESULTS)) do
  delete_result(name)
  redis.call('RPUSH', GARBAGE, name)
end

-- The fields of a tombstone: none about how the result was made, or where it was.
local TOMBSTONE = {'state', 'ended', 'expires', 'reason', 'message', 'field', 'result_bytes', 'cached', unpack(LASTING)}
for _, id in ipairs(due(KEPT)) do
  local fields = read_fields(id, TOMBSTONE)
  if fields.keep == '1' and options.tombstone_ttl > 0 then
    rewrite(id, {}, TOMBSTONE, fields)
    redis.call('DEL', waiters_key(id))
    make_evictable(id, TOMBSTONES, fields.tenant or '', text(number(fields.ended)), options.tombstone_ttl)
  else
    forget(id)
  end
end

for _, index in ipairs({TOMBSTONES, ANSWERED}) do
  for _, id in ipairs(due(index)) do forget(id) end
end
return math.max(most, trim_cache(options.limit))
