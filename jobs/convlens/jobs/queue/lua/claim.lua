#!lua flags=allow-oom
-- Takes the jobs of a pool whose turn it is, for a hand. ARGV: pool, worker, lease, most images, secret, hand, what it does
-- when there is nothing (see Then), linger, awake, most jobs of many passes, result_ttl, answered_ttl, 1 from a worker that
-- is idle, most huge jobs.
-- Returns 1 or 0, then id, record pairs; a job's token is the secret and its id. One job is taken whatever its images, but none
-- for 0. What is left is told to another hand that waits. A replay of the call finds what it took.
-- A job that was begun before and whose worker fell silent is a suspect: it may have been the reason. It is taken by itself, by
-- an idle worker, so that no other job can fall with it a second time; when it is in turn and the worker is not idle, nothing
-- behind it is taken, and the first value returned is 1.
local pool, worker, lease, room, secret, hand, after = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5],
  ARGV[6], ARGV[7]
local linger, believed = tonumber(ARGV[8]), tonumber(ARGV[9])
local left = {many = tonumber(ARGV[10]), huge = tonumber(ARGV[14])}
local able = left.many > 0 and left.huge > 0 and 'many' or 'one'
local ttls = {result = tonumber(ARGV[11]), answered = tonumber(ARGV[12])}
local is_idle = ARGV[13] == '1'
local now, taken, skipped, suspect_waits = clock(), {0}, 0, false

for _, id in ipairs(redis.call('LRANGE', P .. 'claim:' .. secret, 0, -1)) do
  if redis.call('HGET', key(id), 'token') == secret .. '-' .. id then
    taken[#taken + 1] = id
    taken[#taken + 1] = record(id)
  end
end
if #taken > 1 then return taken end

for _, it in ipairs({'one', 'many'}) do redis.call('ZREM', idle(pool, it), hand) end
local served, ids, leases = nil, {}, {}
while room > 0 do
  local flow, tag = unpack(redis.call('ZRANGE', flows(pool), skipped, skipped, 'WITHSCORES'))
  if not flow then break end
  local id = redis.call('ZRANGE', queued(flow), 0, 0)[1]
  local r = id and redis.call('HMGET', key(id), 'state', 'deadline', 'cost', 'count', 'priority', 'attempts', 'watched',
                                   'pixels')
  if not id then
    redis.call('ZREM', flows(pool), flow)
    redis.call('HSET', tags(pool), flow, tag)
  elseif r[1] ~= QUEUED_ then
    redis.call('ZREM', queued(flow), id)
    if not r[1] then discard(id) end
  elseif not (tonumber(r[2]) and tonumber(r[3]) and tonumber(r[4]) and WEIGHTS[r[5]] and tonumber(r[6])) then
    redis.call('ZREM', queued(flow), id) -- which its record may not name
    finish(id, now, FAILED_, {reason = 'INTERNAL', message = "the job's record is damaged; submit the job again"}, nil, ttls)
    set_aside('record', id, 'is damaged')
  elseif tonumber(r[2]) <= now then
    finish(id, now, EXPIRED_, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was queued'},
           nil, ttls)
  elseif left[kind(r[3], r[4], r[8])] == 0 then
    skipped = skipped + 1
  else
    local what = kind(r[3], r[4], r[8])
    local is_suspect, is_slow = tonumber(r[6]) > 0, what == 'slow' -- those behind a slow one would wait until it is decoded
    if is_suspect and not (is_idle and #ids == 0) then
      suspect_waits = true
      break
    end
    room = room - tonumber(r[4])
    if (room < 0 or is_slow) and #ids > 0 then
      room = 0
      break
    end
    if is_suspect or is_slow then room = 0 end
    redis.call('ZREM', queued(flow), id)
    if left[what] then left[what] = left[what] - 1 end
    -- One that had been skipped turns nothing back.
    served = math.max(served or number(redis.call('HGET', tags(pool), '')), tonumber(tag))
    redis.call('ZADD', flows(pool), tonumber(tag) + tonumber(r[3]) / WEIGHTS[r[5]], flow)
    redis.call('HSET', key(id), 'state', RUNNING_, 'token', secret .. '-' .. id, 'worker', worker, 'attempts',
               text(r[6] + 1), 'started', text(now), 'progress', '')
    if r[7] then notify(id, RUNNING_) end
    ids[#ids + 1] = id
    leases[#leases + 1], leases[#leases + 2] = text(now + lease), id
    taken[#taken + 1], taken[#taken + 2] = id, record(id)
  end
end
if room <= 0 then
  local flow = redis.call('ZRANGE', flows(pool), skipped, skipped)[1]
  local other = flow and idle_hand(pool, flow, now)
  if other then tell_hand(other) end
end
if #ids > 0 then
  redis.call('HSET', tags(pool), '', served)
  in_pieces(leases, function(...) redis.call('ZADD', RUNNING, ...) end)
  in_pieces(ids, function(...) redis.call('RPUSH', P .. 'claim:' .. secret, ...) end)
  redis.call('PEXPIRE', P .. 'claim:' .. secret, 60000)
end
taken[1] = suspect_waits and 1 or 0
if #ids == 0 and after == 'rest' then
  redis.call('ZREM', awake(pool), hand)
else
  if #ids == 0 and after == 'wait' then redis.call('ZADD', idle(pool, able), text(now + linger), hand) end
  redis.call('ZADD', awake(pool), text(now + believed), hand)
end
return taken
