#!lua flags=allow-oom
-- How many messages wait in Celery's queues. ARGV: pools. Without no-writes, so that a Redis that cannot write refuses
-- this as it refuses consumers.
local found = 0
for _, pool in ipairs(ARGV) do found = found + redis.call('LLEN', messages(pool)) end
return found
