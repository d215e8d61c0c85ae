-- Poisoned entries: keys of the wrong type and values that nobody can parse. They are removed and noted for the reconciler to
-- report, so that each is met once. From here on, redis.call repairs the key that it fails on.
local server_call, server_pcall, type = redis.call, redis.pcall, type -- locals are faster than globals

-- Notes an entry that was removed; the latest hundred notes are kept.
local function quarantine(kind, entry, reason)
  server_pcall('RPUSH', POISONED_INBOX, kind .. ' ' .. string.sub(entry, 1, 200) .. ' ' .. reason)
  server_pcall('LTRIM', POISONED_INBOX, -100, -1)
end

-- As redis.call, but removes a key of the wrong type, or a counter that is no number, and repeats the command: otherwise every
-- script that meets the key would fail for ever.
local function call_or_repair(...)
  local reply = server_pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local command, key, field = ...
  local removed
  local is_bad_number = string.find(reply.err, 'not an integer') or string.find(reply.err, 'overflow')
  if string.find(reply.err, '^WRONGTYPE') or command == 'INCR' and is_bad_number then
    removed = server_pcall('UNLINK', key)
  elseif command == 'HINCRBY' and is_bad_number then
    removed = server_pcall('HDEL', key, field)
  end
  if not removed then error(reply) end -- another kind of error
  if type(removed) ~= 'number' then -- a script without writes takes the key for a missing one
    return server_call(command, 'convlens:nothing', select(3, ...))
  end
  quarantine('key', key, reply.err)
  return server_call(...)
end
local redis = {call = call_or_repair}
