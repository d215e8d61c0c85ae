-- The delivery of jobs: Celery's lists, and the fair order in which jobs are claimed.
--
-- Each job that waits in a queue is one Celery message in a list of its pool, pushed and removed by the script that changes the
-- queue, so that the length of the list is the number of jobs that wait. A message is a permit: whoever pops one may claim a job,
-- and which one is decided by fairness alone. Jobs of many passes, and huge ones to decode, have lists of their own, since a
-- consumer has room for them apart.

local KINDS = {'', 'many', 'huge'} -- of lists; jobs of the kinds one and slow share the first

local function list_kind(flow)
  local kind = string.match(flow, '^[^/]*/%d/(%a+)/')
  return (kind == 'many' or kind == 'huge') and kind or ''
end
local function messages(pool, kind) return 'convlens.' .. pool .. (kind == '' and '' or '/' .. kind) end

-- Celery's message for a job, of its protocol 2, as kombu's Redis transport has it in a list.
local function push_message(pool, kind, id)
  local list = messages(pool, kind)
  local job = cjson.encode(id)
  redis.call('LPUSH', list, '{"body":' .. cjson.encode('[[' .. job .. '],{},{}]') ..
    ',"content-type":"application/json","content-encoding":"utf-8","headers":{"lang":"py","task":"convlens.visualize","id":' .. job ..
    ',"root_id":' .. job .. ',"parent_id":null,"group":null},"properties":{"delivery_mode":2,"priority":0,"delivery_tag":' .. job ..
    ',"delivery_info":{"exchange":"","routing_key":' .. cjson.encode(list) .. '}}}')
end

-- Puts a job into its queue. Each pool, the workers that serve a model with the same weights, has queues of its own, and only
-- they may compute the jobs in them. Queues are fair: a flow is a pool's jobs of one priority, kind and tenant, first in first
-- out. The flow with the smallest tag is served next, and its tag grows by the cost of the job over the priority's weight.
-- A flow that becomes active begins at the tag served last: nobody saves up turns, and nobody starves. It is next in turn then,
-- while workers may have all in hand that they want of others' jobs: they are notified, to claim one job more. Returns how
-- many jobs of the flow are before this one.
local function enqueue(flow, id, sequence)
  local pool = pool_of(flow)
  if redis.call('ZADD', queued(flow), sequence, id) == 1 then push_message(pool, list_kind(flow), id) end
  redis.call('SADD', QUEUES, pool)
  if not redis.call('ZSCORE', flows(pool), flow) then
    local served = number(redis.call('HGET', tags(pool), ''))
    local own = number(redis.call('HGET', tags(pool), flow))
    redis.call('HDEL', tags(pool), flow)
    redis.call('ZADD', flows(pool), math.max(served, own), flow)
  end
  local before = redis.call('ZCARD', queued(flow)) - 1
  if before == 0 and redis.call('ZCARD', flows(pool)) > 1 then redis.call('PUBLISH', P .. 'new-flows', pool) end
  return before
end

-- Takes a job out of its queue that will not be claimed, and a message out of the list.
local function dequeue(flow, id)
  if redis.call('ZREM', queued(flow), id) == 1 then redis.call('RPOP', messages(pool_of(flow), list_kind(flow))) end
end

-- A job of a kind that waits in one of a pool's first flows.
local function first_waiting(pool, kind)
  for _, flow in ipairs(redis.call('ZRANGE', flows(pool), 0, 999)) do
    local id = list_kind(flow) == kind and redis.call('ZRANGE', queued(flow), 0, 0)[1]
    if id then return id end
  end
end

-- Pops the messages of jobs that were claimed, `taken` by kind. A consumer that has popped one of the kind `permit` before, and
-- did not use it though jobs are left, gives it back for others.
local function pop_messages(pool, taken, permit)
  for _, kind in ipairs(KINDS) do
    local excess = (taken[kind] or 0) - (permit == kind and 1 or 0)
    if excess > 0 then
      redis.call('RPOP', messages(pool, kind), excess)
    elseif excess < 0 then
      local id = first_waiting(pool, kind)
      if id then push_message(pool, kind, id) end
    end
  end
end

-- Makes the lengths of a pool's lists those of its queues: messages may be lost, or popped by workers that were killed. Only as
-- many flows as `limit` are looked at, and where there are more no message is removed. Returns how many jobs wait in these, and
-- how many messages were missing.
local function repair_messages(pool, limit)
  local waiting, ids, all, missing = {}, {}, 0, 0
  local names = redis.call('ZRANGE', flows(pool), 0, limit - 1)
  for _, flow in ipairs(names) do
    local kind, jobs = list_kind(flow), redis.call('ZCARD', queued(flow))
    waiting[kind], ids[kind], all = (waiting[kind] or 0) + jobs, ids[kind] or {}, all + jobs
    if #ids[kind] < limit then
      for _, id in ipairs(redis.call('ZRANGE', queued(flow), 0, limit - 1)) do table.insert(ids[kind], id) end
    end
  end
  for _, kind in ipairs(KINDS) do
    local excess = redis.call('LLEN', messages(pool, kind)) - (waiting[kind] or 0)
    for i = 1, math.min(-excess, #(ids[kind] or {})) do push_message(pool, kind, ids[kind][i]) end
    missing = missing + math.max(0, -excess)
    if excess > 0 and #names < limit then redis.call('LTRIM', messages(pool, kind), excess, -1) end
  end
  return all, missing
end
