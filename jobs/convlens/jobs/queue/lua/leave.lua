#!lua flags=allow-oom
-- include: waiters
-- Removes waiters from their jobs.
-- KEYS: none. Options: waiters (a list of id, waiter pairs), result_ttl and answered_ttl (ms), bounds (see trim_cache). Returns
-- the names of some unused payloads, for the caller to delete.
for _, waiter in ipairs(options.waiters) do leave(waiter[1], waiter[2]) end
local limit = 2 * #options.waiters + 5 -- the jobs' images and results, and a few more
trim_cache(limit)
return redis.call('LPOP', GARBAGE, limit) or {}
