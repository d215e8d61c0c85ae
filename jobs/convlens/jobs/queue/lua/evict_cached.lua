#!lua flags=allow-oom
-- include: results
-- Deletes cached results, the oldest first, to free space in a full folder of payloads.
-- KEYS: none. Options: bytes (at least so many, if there are). Returns the names of unused payloads, for the caller to delete.
local evicted = evict_cached(options.bytes, 0, 1000)
return redis.call('LPOP', GARBAGE, 1000 + evicted) or {}
