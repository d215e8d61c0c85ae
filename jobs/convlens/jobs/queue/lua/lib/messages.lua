-- Celery's lists of messages. Each waiting job has one message in a list of its pool, pushed and popped by the scripts that change
-- the flows, so the length of a list is the number of jobs that wait. A message is a permit to claim *some* job of its list.

-- The kinds of jobs, by what they need more of than most: 'many' passes (or bytes), 'huge' or 'slow' images to decode, or 'one'
-- pass per image. Each kind has flows of its own. Messages of 'many' and 'huge' jobs have lists of their own, since consumers
-- limit them apart; those of 'slow' and 'one' share the list ''.
local LARGE_PIXELS, SLOW_PIXELS = 16000000, 2000000 -- as in image_formats.py: of a job, and of an image
local function job_kind(cost, images, pixels)
  cost, images, pixels = tonumber(cost), tonumber(images), tonumber(pixels or 0)
  if cost - math.floor(pixels / LARGE_PIXELS) > images then return 'many' end
  if pixels >= LARGE_PIXELS or pixels > SLOW_PIXELS * images then return 'huge' end
  return pixels > SLOW_PIXELS and 'slow' or 'one'
end

-- The kind of list that the messages of a flow are in.
local function list_kind(flow)
  local kind = string.match(flow, '^[^/]*/%d/(%a+)/')
  return (kind == 'many' or kind == 'huge') and kind or ''
end

-- Pushes a job's message, as kombu's Redis transport stores it: Celery's protocol 2.
local function push_message(pool, kind, id)
  local list, job = messages_key(pool, kind), cjson.encode(id)
  redis.call('LPUSH', list, '{"body":' .. cjson.encode('[[' .. job .. '],{},{}]') ..
    ',"content-type":"application/json","content-encoding":"utf-8","headers":{"lang":"py","task":"convlens.visualize","id":' .. job ..
    ',"root_id":' .. job .. ',"parent_id":null,"group":null},"properties":{"delivery_mode":2,"priority":0,"delivery_tag":' .. job ..
    ',"delivery_info":{"exchange":"","routing_key":' .. cjson.encode(list) .. '}}}')
end

-- The first job of a list kind in a pool's next thousand flows.
local function first_waiting(pool, kind)
  for _, flow in ipairs(redis.call('ZRANGE', flows_key(pool), 0, 999)) do
    local id = list_kind(flow) == kind and redis.call('ZRANGE', queued_key(flow), 0, 0)[1]
    if id then return id end
  end
end

-- Pops the messages of claimed jobs, whose number is given by list kind. The consumer has popped one of the kind `permit` itself:
-- where it claimed no job for that although one waits, a message is pushed back.
local function pop_messages(pool, claimed, permit)
  for _, kind in ipairs(LIST_KINDS) do
    local excess = (claimed[kind] or 0) - (permit == kind and 1 or 0)
    if excess > 0 then
      redis.call('RPOP', messages_key(pool, kind), excess)
    elseif excess < 0 then
      local id = first_waiting(pool, kind)
      if id then push_message(pool, kind, id) end
    end
  end
end

-- Makes a pool's lists as long as its queues: messages may be lost, or popped by workers that are killed. Reads at most `limit`
-- flows, and where there are more removes no message. Returns how many jobs wait in these flows, and how many messages were
-- missing.
local function repair_messages(pool, limit)
  local waiting, ids, total, missing = {}, {}, 0, 0
  local names = redis.call('ZRANGE', flows_key(pool), 0, limit - 1)
  for _, flow in ipairs(names) do
    local kind, jobs = list_kind(flow), redis.call('ZCARD', queued_key(flow))
    waiting[kind], ids[kind], total = (waiting[kind] or 0) + jobs, ids[kind] or {}, total + jobs
    if #ids[kind] < limit then
      for _, id in ipairs(redis.call('ZRANGE', queued_key(flow), 0, limit - 1)) do table.insert(ids[kind], id) end
    end
  end
  for _, kind in ipairs(LIST_KINDS) do
    local excess = redis.call('LLEN', messages_key(pool, kind)) - (waiting[kind] or 0)
    for i = 1, math.min(-excess, #(ids[kind] or {})) do push_message(pool, kind, ids[kind][i]) end
    missing = missing + math.max(0, -excess)
    if excess > 0 and #names < limit then redis.call('LTRIM', messages_key(pool, kind), excess, -1) end
  end
  return total, missing
end
