#!lua flags=allow-oom
-- How many messages wait in Celery's lists. ARGV: pools. Without no-writes, so that a Redis that cannot write refuses this as it
-- refuses consumers.
local waiting = 0
for _, pool in ipairs(ARGV) do
  for _, kind in ipairs(KINDS) do
    local list = messages(pool, kind)
    waiting = waiting + redis.call('LLEN', list)
    -- kombu's own, which no other script looks at: of another type they would keep the consumer from starting for ever
    for _, priority in ipairs({'3', '6', '9'}) do redis.call('LLEN', list .. '\6\22' .. priority) end
    for _, of in ipairs({'_kombu.binding.', '_kombu.binding_permanent.'}) do redis.call('SCARD', of .. list) end
  end
end
return waiting
