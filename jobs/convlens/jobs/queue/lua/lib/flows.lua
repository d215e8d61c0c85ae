-- include: messages
-- Weighted fair queueing. A flow is a pool's waiting jobs of one priority, kind and tenant, first in, first out. The flow with the
-- smallest tag is served next, and its tag grows by the job's cost over the priority's weight. A flow that becomes active starts
-- at the tag served last, so no flow saves up turns and none starves.

-- Puts a job into its flow and pushes its message. Returns how many jobs of the flow are before it.
local function enqueue(flow, id, sequence)
  local pool = pool_of(flow)
  if redis.call('ZADD', queued_key(flow), sequence, id) == 1 then push_message(pool, list_kind(flow), id) end
  redis.call('SADD', QUEUES, pool)
  if not redis.call('ZSCORE', flows_key(pool), flow) then
    local served = number(redis.call('HGET', tags_key(pool), ''))
    local own = number(redis.call('HGET', tags_key(pool), flow))
    redis.call('HDEL', tags_key(pool), flow)
    redis.call('ZADD', flows_key(pool), math.max(served, own), flow)
  end
  local position = redis.call('ZCARD', queued_key(flow)) - 1
  if position == 0 and redis.call('ZCARD', flows_key(pool)) > 1 then -- workers may be full of other flows' jobs: one more fits
    redis.call('PUBLISH', NEW_FLOWS, pool)
  end
  return position
end

-- Removes a job that will not be claimed, and one message.
local function dequeue(flow, id)
  if redis.call('ZREM', queued_key(flow), id) == 1 then redis.call('RPOP', messages_key(pool_of(flow), list_kind(flow))) end
end
