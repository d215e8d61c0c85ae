#!lua flags=allow-oom
-- include: retention
-- Frees memory in a Redis that is nearly full: deletes cached results and tombstones, the oldest first.
-- KEYS: none. Options: limit (of each). Returns how many it deleted in all, and the names of some unused payloads, for the caller
-- to delete.
local tombstones = redis.call('ZRANGE', TOMBSTONES, 0, options.limit - 1)
for _, id in ipairs(tombstones) do forget(id) end
local results = evict_cached(0, math.huge, options.limit)
return {#tombstones + results, redis.call('LPOP', GARBAGE, 2 * options.limit) or {}}
