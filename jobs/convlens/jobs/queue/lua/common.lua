-- What every script begins with, before what is in lib: keys, time, and the few things that happen in several of them. Times
-- are milliseconds of Redis' own clock. No script deletes payloads: it names those that nobody needs, in GARBAGE or in its
-- answer. What is counted for all of a script's jobs is written once, at its end (see settle). A call to Redis costs more than
-- what it does.
local P = 'convlens:'
local JOBS, RUNNING, DEADLINES = P .. 'jobs', P .. 'running', P .. 'deadlines'
-- An ended record is in one of these, by when that is over. KEPT: its result is promised, or somebody waits for it.
-- TOMBSTONES: its result was promised, and has expired. ANSWERED: nobody asked to keep it, and nobody waits any more.
-- Records of the last two go sooner where others need their room.
local KEPT, TOMBSTONES, ANSWERED = P .. 'kept', P .. 'tombstones', P .. 'answered'
local LOAD, DRAIN, GARBAGE, QUEUES = P .. 'load', P .. 'drain', P .. 'garbage', P .. 'queues'
local IMAGES = P .. 'images'
local POOLS, SINCE, UNSERVED = P .. 'pools', P .. 'pools-since', P .. 'pools-unserved'
local RESULTS, CACHED = P .. 'results', P .. 'cached'
local QUEUED_, RUNNING_, SUCCEEDED_, FAILED_, CANCELLED_, EXPIRED_ = '1', '2', '3', '4', '5', '6'
local WEIGHTS = {['1'] = 16, ['2'] = 4, ['3'] = 1} -- the shares of the priorities high, normal and low

-- What is poisoned (an entry that nobody can read) is taken out of the way and noted, for the reconciler to report: so it is met
-- once. The latest hundred notes are kept.
local POISONED_INBOX = P .. 'poisoned-inbox'
local server = redis
local function set_aside(kind, entry, why)
  server.pcall('RPUSH', POISONED_INBOX, kind .. ' ' .. string.sub(entry, 1, 200) .. ' ' .. why)
  server.pcall('LTRIM', POISONED_INBOX, -100, -1)
end

-- As redis.call, but a key of the wrong type, or a counter that is no number, is set aside, and the command repeated: else all
-- scripts that meet it would fail for ever.
local function call(...)
  local answer = server.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  local command, k, field = ...
  local removed
  if string.find(answer.err, '^WRONGTYPE') then
    removed = server.pcall('UNLINK', k)
  elseif command == 'HINCRBY' and (string.find(answer.err, 'not an integer') or string.find(answer.err, 'overflow')) then
    removed = server.pcall('HDEL', k, field)
  elseif command == 'INCR' and (string.find(answer.err, 'not an integer') or string.find(answer.err, 'overflow')) then
    removed = server.pcall('UNLINK', k)
  end
  if type(removed) ~= 'number' then
    if not removed then error(answer) end -- another mistake
    return server.call(command, P .. 'nothing', select(3, ...)) -- a script that may not write takes the key for one that is not there
  end
  set_aside('key', k, answer.err)
  return server.call(...)
end
local redis = {call = call}

-- A number of a field that may be missing or damaged.
local function number(value) return tonumber(value or 0) or 0 end

local function key(id) return P .. 'job:' .. id end
local function jobs_of(tenant) return P .. 'jobs:' .. tenant end
local function queued(flow) return P .. 'queued:' .. flow end
local function flows(pool) return P .. 'flows:' .. pool end
local function tags(pool) return P .. 'tags:' .. pool end
local function serving(pool) return P .. 'serving:' .. pool end
local function pack_of(name) return P .. 'pack:' .. name end
local function same(pool, fingerprint) return P .. 'same:' .. pool .. ':' .. fingerprint end
local function result_of(name) return P .. 'result:' .. name end
local function group_of(number) return P .. 'group:' .. number end
local function waiters(id) return P .. 'waiters:' .. id end
local function droppable(tenant) return P .. 'droppable:' .. tenant end -- its TOMBSTONES and ANSWERED, by when they ended
local function pool_of(flow) return string.match(flow, '^[^/]*') end
local function model_of(pool) return string.match(pool, '^[^@]*') end
local function text(number) return string.format('%.0f', number == 0 and 0 or number) end -- never -0

-- What a job takes more of than most, so that it waits in a flow of its own: many passes (or bytes), huge or slow ones to decode.
-- Both bounds are those of image_formats.py: of a job, and of an image.
local LARGE_PIXELS, SLOW_PIXELS = 16000000, 2000000
local function kind(cost, images, pixels)
  pixels = tonumber(pixels or 0)
  if tonumber(cost) - math.floor(pixels / LARGE_PIXELS) > tonumber(images) then return 'many' end
  if pixels >= LARGE_PIXELS or pixels > SLOW_PIXELS * tonumber(images) then return 'huge' end
  return pixels > SLOW_PIXELS and 'slow' or 'one'
end

local time
local function clock()
  if not time then
    local t = redis.call('TIME')
    time = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return time
end

-- Those who wait for a job hear of its end, those who watch it of every change, its worker of an end that it did not make.
local function notify(id, state, more)
  redis.call('PUBLISH', P .. 'notices', id .. ' ' .. state .. (more or ''))
  if state == CANCELLED_ or state == EXPIRED_ then redis.call('PUBLISH', P .. 'ended', id .. ' ' .. state) end
end

-- Forgets a job that has no record.
local function discard(id)
  for _, index in ipairs({JOBS, RUNNING, DEADLINES, KEPT, TOMBSTONES, ANSWERED}) do redis.call('ZREM', index, id) end
  set_aside('job', id, 'has no record')
end

local function is_live(state) return state == QUEUED_ or state == RUNNING_ end

-- Sets a live job's state, and fields that go with it. Equal jobs that follow it have their state from it (see record).
local function set_state(id, state, ...)
  local watched = redis.call('HGET', key(id), 'watched')
  redis.call('HSET', key(id), 'state', state, ...)
  if watched then notify(id, state) end
end

-- LOAD counts what is held, in all and for each tenant: jobs, image_bytes, pixels, result_bytes; and cached_bytes, in all. `more` is
-- what this script adds to it.
local more = {}
local function count(what, tenant, amount)
  more[what] = (more[what] or 0) + amount
  if tenant and tenant ~= '' then
    local field = what .. ':' .. tenant
    more[field] = (more[field] or 0) + amount
  end
end

local function load_of(fields)
  local load = {}
  for i, value in ipairs(redis.call('HMGET', LOAD, unpack(fields))) do
    load[fields[i]] = number(value) + (more[fields[i]] or 0)
  end
  return load
end

-- True while a worker of the pool says that it is there. Workers' scores are seconds, those of POOLS, too.
local function is_served(pool, now)
  return redis.call('ZCOUNT', serving(pool), string.format('(%.3f', now / 1000), '+inf') > 0
end

-- The other pools of a pool's model that are served.
local function other_pools(pool, now)
  local others = {}
  for _, other in ipairs(redis.call('ZRANGE', POOLS, string.format('(%.3f', now / 1000), '+inf', 'BYSCORE')) do
    if other ~= pool and model_of(other) == model_of(pool) and is_served(other, now) then others[#others + 1] = other end
  end
  return others
end

-- Calls `use` with some values at a time, since Lua's stack is bounded.
local function in_pieces(values, use)
  for first = 1, #values, 1000 do use(unpack(values, first, math.min(first + 999, #values))) end
end

-- Images are stored in packs, those together that came together. IMAGES has by digest the latest pack with that image. A pack
-- is a hash: how many times jobs hold one of its images, its bytes, when its payload may be gone, and by digest where in it
-- each image is. It goes when no job holds any of them.
local function stored_images(digests, needed_until)
  local found = {}
  in_pieces(digests, function(...)
    local some = {...}
    for i, pack in ipairs(redis.call('HMGET', IMAGES, ...)) do
      local place = pack and redis.call('HMGET', pack_of(pack), 'expires', some[i])
      if place and tonumber(place[2]) and number(place[1]) >= needed_until then
        found[some[i]] = {pack = pack, offset = tonumber(place[2])}
      end
    end
  end)
  return found
end

local function store_pack(pack, bytes, expires, held, places)
  local inside, latest = {'bytes', text(bytes), 'expires', text(expires), 'held', held}, {}
  for digest, offset in pairs(places) do
    inside[#inside + 1], inside[#inside + 2] = digest, text(offset)
    latest[#latest + 1], latest[#latest + 2] = digest, pack
  end
  in_pieces(inside, function(...) redis.call('HSET', pack_of(pack), ...) end)
  in_pieces(latest, function(...) redis.call('HSET', IMAGES, ...) end)
end

local function drop_pack(pack, tenant)
  local digests, bytes, all = {}, 0, redis.call('HGETALL', pack_of(pack))
  for i = 1, #all, 2 do
    if all[i] == 'bytes' then
      bytes = number(all[i + 1])
    elseif all[i] ~= 'held' and all[i] ~= 'expires' then
      digests[#digests + 1] = all[i]
    end
  end
  in_pieces(digests, function(...)
    local some, ours = {...}, {}
    for i, latest in ipairs(redis.call('HMGET', IMAGES, ...)) do
      if latest == pack then ours[#ours + 1] = some[i] end
    end
    if #ours > 0 then redis.call('HDEL', IMAGES, unpack(ours)) end
  end)
  count('image_bytes', tenant, -bytes)
  redis.call('DEL', pack_of(pack))
  redis.call('RPUSH', GARBAGE, pack)
end

local function drop_images(job_images, tenant)
  if not job_images or job_images == '[]' then return end
  local less = {}
  local is_whole = pcall(function()
    for _, image in ipairs(cjson.decode(job_images)) do less[image[2]] = (less[image[2]] or 0) + 1 end
  end)
  if not is_whole then return set_aside('images', job_images, 'is no list of images') end
  for pack, number in pairs(less) do
    if redis.call('HINCRBY', pack_of(pack), 'held', -number) <= 0 then drop_pack(pack, tenant) end
  end
end

-- Jobs that end in a second, decaying over ten: what refused callers are told to wait by.
local function drain_rate(now)
  local r = redis.call('HMGET', DRAIN, 'at', 'rate')
  return number(r[2]) * math.exp(math.min(0, number(r[1] or now) - now) / 10000)
end

local ended = 0 -- so many by this script

-- What every script does at its end.
local function settle()
  for field, amount in pairs(more) do
    local left = amount ~= 0 and redis.call('HINCRBY', LOAD, field, text(amount)) or 1
    if left < 0 or left == 0 and string.find(field, ':', 1, true) then redis.call('HDEL', LOAD, field) end -- < 0: it was lost
  end
  if ended > 0 then
    redis.call('HSET', DRAIN, 'at', text(clock()), 'rate', tostring(drain_rate(clock()) + 0.1 * ended))
  end
end
