#!lua flags=allow-oom
-- Counts the messages in Celery's lists. Not flagged no-writes, so that a Redis that cannot write rejects it as it rejects
-- consumers.
-- KEYS: none. Options: pools (a list). Returns the number.
local waiting = 0
for _, pool in ipairs(options.pools) do
  for _, kind in ipairs(LIST_KINDS) do
    local list = messages_key(pool, kind)
    waiting = waiting + redis.call('LLEN', list)
    -- kombu's own keys, which no other script reads: of another type they would keep the consumer from starting for ever
    for _, priority in ipairs({'3', '6', '9'}) do redis.call('LLEN', list .. '\6\22' .. priority) end
    for _, prefix in ipairs({'_kombu.binding.', '_kombu.binding_permanent.'}) do redis.call('SCARD', prefix .. list) end
  end
end
return waiting
