#!lua flags=allow-oom
-- How many messages wait in Celery's queues. ARGV: queues. Without no-writes, so that a Redis that cannot write refuses
-- this as it refuses consumers.
local found = 0
for _, queue in ipairs(ARGV) do found = found + redis.call('LLEN', queue) end
return found
