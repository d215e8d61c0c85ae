#!lua flags=allow-oom
-- include: records results
-- Deletes tombstones and cached results, the oldest first: in a Redis that is nearly full, or for a full folder of payloads.
-- KEYS: none. Options: tombstones and results (how many), bytes (results are deleted until so many are freed). Returns how many
-- it deleted in all, and the names of some unused payloads, for the caller to delete.
local tombstones = redis.call('ZRANGE', TOMBSTONES, '-inf', '+inf', 'BYSCORE', 'LIMIT', 0, options.tombstones)
for _, id in ipairs(tombstones) do forget(id) end
local results = evict_cached(options.bytes, options.results, 1000)
return {#tombstones + results, redis.call('LPOP', GARBAGE, 1000 + results) or {}}
