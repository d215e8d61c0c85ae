-- The named options of a call: every script takes them as one JSON object in ARGV[1]. Bytes that JSON cannot carry (job specs,
-- model cards) follow as ARGV[2], ARGV[3], … No script has KEYS, since it computes key names from what it reads.
local options = cjson.decode(ARGV[1])
