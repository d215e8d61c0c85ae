#!lua flags=allow-oom
-- Ends what is past its deadline, and forgets what has outlived its time. ARGV: limit, result_ttl, answered_ttl,
-- tombstone_ttl, cached_bytes, result_bytes, known_jobs (see trim_cache). Returns the most that it found due of one kind: where
-- that is the limit, there may be more.
local limit, now, most = tonumber(ARGV[1]), clock(), 0
local ttls = {result = tonumber(ARGV[2]), answered = tonumber(ARGV[3]), tombstone = tonumber(ARGV[4])}
local bounds = {cached_bytes = tonumber(ARGV[5]), result_bytes = tonumber(ARGV[6]), known_jobs = tonumber(ARGV[7])}

local function due(index)
  local found = redis.call('ZRANGE', index, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, limit)
  most = math.max(most, #found)
  return found
end

for _, id in ipairs(due(DEADLINES)) do
  local state = redis.call('HGET', key(id), 'state')
  if is_live(state) then
    local where = state == QUEUED_ and 'queued' or 'running'
    finish(id, now, EXPIRED_, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was ' .. where},
           nil, ttls)
  elseif state then
    redis.call('ZREM', DEADLINES, id)
  else
    discard(id)
  end
end

for _, name in ipairs(due(RESULTS)) do
  drop_result(name)
  redis.call('RPUSH', GARBAGE, name)
end

-- What an expired job's id still tells: nothing of how its result was made, or where it was.
local TOLD = {'state', 'ended', 'expires', 'reason', 'message', 'field', 'result_bytes', 'cached', unpack(LASTING)}
for _, id in ipairs(due(KEPT)) do
  local f = read_fields(id, TOLD)
  if f.keep == '1' and ttls.tombstone > 0 then
    rewrite(id, {}, TOLD, f)
    redis.call('DEL', waiters(id))
    let_go(id, TOMBSTONES, f.tenant or '', text(number(f.ended)), now + ttls.tombstone)
  else
    forget(id)
  end
end

for _, index in ipairs({TOMBSTONES, ANSWERED}) do
  for _, id in ipairs(due(index)) do forget(id) end
end
return math.max(most, trim_cache(bounds, load_of({'cached_bytes', 'result_bytes'}), 0, limit))
