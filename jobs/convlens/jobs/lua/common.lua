-- What every script begins with: keys, time, and the few things that happen in several of them. Times are milliseconds of
-- Redis' own clock. No script deletes payloads: it names those that nobody needs, in GARBAGE or in its answer. What is counted
-- for all of a script's jobs is written once, at its end (see settle). A call to Redis costs more than what it does.
local P = 'convlens:'
local JOBS, RUNNING, DEADLINES, FORGET = P .. 'jobs', P .. 'running', P .. 'deadlines', P .. 'forget'
local LOAD, DRAIN, GARBAGE, QUEUES = P .. 'load', P .. 'drain', P .. 'garbage', P .. 'queues'
local IMAGES = P .. 'images'
local POOLS, SINCE, UNSERVED = P .. 'pools', P .. 'pools-since', P .. 'pools-unserved'
local RESULTS, RESULT_SIZES, RESULT_REFS, CACHED = P .. 'results', P .. 'result-sizes', P .. 'result-refs', P .. 'cached'
local QUEUED_, RUNNING_, SUCCEEDED_, FAILED_, CANCELLED_, EXPIRED_ = '1', '2', '3', '4', '5', '6'
local WEIGHTS = {['1'] = 16, ['2'] = 4, ['3'] = 1} -- the shares of the priorities high, normal and low

local function key(id) return P .. 'job:' .. id end
local function jobs_of(tenant) return P .. 'jobs:' .. tenant end
local function queued(flow) return P .. 'queued:' .. flow end
local function flows(pool) return P .. 'flows:' .. pool end
local function tags(pool) return P .. 'tags:' .. pool end
local function messages(pool) return 'convlens.' .. pool end
local function serving(pool) return P .. 'serving:' .. pool end
local function pack_of(name) return P .. 'pack:' .. name end
local function same(pool, fingerprint) return P .. 'same:' .. pool .. ':' .. fingerprint end
local function followers(id) return P .. 'followers:' .. id end
local function awake(pool) return P .. 'awake:' .. pool end
local function idle(pool, kind) return P .. 'idle:' .. pool .. ':' .. kind end
local function pool_of(flow) return string.match(flow, '^[^/]*') end
local function model_of(pool) return string.match(pool, '^[^@]*') end
local function text(number) return string.format('%.0f', number == 0 and 0 or number) end -- never -0

-- What a job takes more of than most, so that it waits in a flow of its own: many passes (or bytes), huge or slow ones to decode.
-- LARGE_PIXELS is that of image_formats.py.
local LARGE_PIXELS, SLOW_PIXELS = 16000000, 2000000
local function kind(cost, images, pixels)
  pixels = tonumber(pixels or 0)
  if tonumber(cost) - math.floor(pixels / LARGE_PIXELS) > tonumber(images) then return 'many' end
  return pixels >= LARGE_PIXELS and 'huge' or pixels > SLOW_PIXELS and 'slow' or 'one'
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

local function is_live(state) return state == QUEUED_ or state == RUNNING_ end

-- A live job's state, and what else of it is told, which are those of the equal jobs that follow it, too.
local function tell_followers(id, state, ...)
  for _, it in ipairs(redis.call('LRANGE', followers(id), 0, -1)) do
    local r = redis.call('HMGET', key(it), 'state', 'watched', 'leader')
    if is_live(r[1]) and r[3] == id then
      redis.call('HSET', key(it), 'state', state, ...)
      if r[2] then notify(it, state) end
    end
  end
end

local function tell(id, state, ...)
  local r = redis.call('HMGET', key(id), 'state', 'watched')
  if is_live(r[1]) then
    redis.call('HSET', key(id), 'state', state, ...)
    if r[2] then notify(id, state) end
  end
  tell_followers(id, state, ...)
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
    load[fields[i]] = tonumber(value or 0) + (more[fields[i]] or 0)
  end
  return load
end

-- True for a flow of jobs that are not large, which its name tells.
local function is_one(flow) return string.find(flow, '^[^/]*/%d/one/') or string.find(flow, '^[^/]*/%d/slow/') end

-- A hand that waits for work of a flow's kind, which is to be told of it; nothing where none does.
local function idle_hand(pool, flow, now)
  for _, able in ipairs(is_one(flow) and {'one', 'many'} or {'many'}) do
    local latest = redis.call('ZPOPMAX', idle(pool, able))
    if latest[1] and tonumber(latest[2]) > now then return latest[1] end
  end
end

local function tell_hand(hand, urgent)
  redis.call('PUBLISH', P .. 'wake:' .. string.match(hand, '[^:]+'), hand .. (urgent and ' urgent' or ''))
end

-- Each pool, the workers that serve a model with the same weights, has a queue of its own, and only they may compute the jobs
-- in it. Queues are fair: a flow is a pool's jobs of one priority and tenant, those of each kind by themselves, first in first
-- out. The flow with the smallest tag is served next, and its tag grows by the cost of the job over the priority's weight.
-- A flow that wakes begins at the tag served last: nobody saves up turns, and nobody starves. A hand that waits for work of
-- its kind is told; returns its name, or nothing where none waits. Not so of a single image of one pass behind others: who was
-- told of these takes it, too, or tells another hand. The first job of a flow while others have jobs waiting is urgent: it is
-- next in turn, but workers have all in hand that they want, and one is to take it all the same.
local function enqueue(flow, id, sequence, images, now)
  local pool = pool_of(flow)
  redis.call('ZADD', queued(flow), sequence, id)
  redis.call('SADD', QUEUES, pool)
  if not redis.call('ZSCORE', flows(pool), flow) then
    local served = tonumber(redis.call('HGET', tags(pool), '') or 0)
    local own = tonumber(redis.call('HGET', tags(pool), flow) or 0)
    redis.call('HDEL', tags(pool), flow)
    redis.call('ZADD', flows(pool), math.max(served, own), flow)
  end
  local first = redis.call('ZCARD', queued(flow)) == 1
  if not first and tonumber(images) == 1 and is_one(flow) then return end
  local hand = idle_hand(pool, flow, now)
  local urgent = first and redis.call('ZCARD', flows(pool)) > 1
  local told = hand or urgent and redis.call('ZREVRANGE', awake(pool), 0, 0)[1]
  if told then tell_hand(told, urgent) end
  return hand
end

-- How many hands will look for a pool's jobs before they rest, messages that will wake some included. AWAKE has them by
-- when they are believed no more.
local function expected(pool, now)
  return redis.call('ZCOUNT', awake(pool), '(' .. text(now), '+inf') + redis.call('LLEN', messages(pool))
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
      if place and place[2] and tonumber(place[1]) >= needed_until then
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
      bytes = tonumber(all[i + 1])
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
  if job_images == '[]' then return end
  local less = {}
  for _, image in ipairs(cjson.decode(job_images)) do less[image[2]] = (less[image[2]] or 0) + 1 end
  for pack, number in pairs(less) do
    if redis.call('HINCRBY', pack_of(pack), 'held', -number) <= 0 then drop_pack(pack, tenant) end
  end
end

-- A result's bytes and tenant; nothing for one that is gone.
local function result_size(name)
  return string.match(redis.call('HGET', RESULT_SIZES, name) or '', '^(%S+) (.*)$')
end

-- Forgets a result, and returns how many bytes less are cached; its payload's name is the caller's to get rid of.
local function drop_result(name)
  local size, tenant = result_size(name)
  local cached = size and redis.call('ZREM', CACHED, name) == 1
  if cached then count('cached_bytes', nil, -size) elseif size then count('result_bytes', tenant, -size) end
  redis.call('HDEL', RESULT_SIZES, name)
  redis.call('HDEL', RESULT_REFS, name)
  redis.call('ZREM', RESULTS, name)
  return cached and tonumber(size) or 0
end

-- Records hold the result that they answer with. One that no record holds any more was got by its callers, and only answers
-- equal requests until its room is needed: it is cached.
local function hold_result(name)
  redis.call('HINCRBY', RESULT_REFS, name, 1)
  if redis.call('ZREM', CACHED, name) == 1 then
    local size, tenant = result_size(name)
    count('cached_bytes', nil, -size)
    count('result_bytes', tenant, size)
  end
end

-- Returns how many hold it still.
local function release_result(name, now)
  local size, tenant = result_size(name)
  if not size then return 0 end
  local held = redis.call('HINCRBY', RESULT_REFS, name, -1)
  if held == 0 then
    redis.call('ZADD', CACHED, text(now), name)
    count('result_bytes', tenant, -size)
    count('cached_bytes', nil, size)
  end
  return held
end

-- Jobs that end in a second, decaying over ten: what refused callers are told to wait by.
local function drain_rate(now)
  local r = redis.call('HMGET', DRAIN, 'at', 'rate')
  return tonumber(r[2] or 0) * math.exp((tonumber(r[1] or now) - now) / 10000)
end

local ended = 0 -- so many by this script

-- What every script does at its end.
local function settle()
  for field, amount in pairs(more) do
    if amount ~= 0 and redis.call('HINCRBY', LOAD, field, text(amount)) == 0 and string.find(field, ':', 1, true) then
      redis.call('HDEL', LOAD, field)
    end
  end
  if ended > 0 then
    redis.call('HSET', DRAIN, 'at', text(clock()), 'rate', tostring(drain_rate(clock()) + 0.1 * ended))
  end
end

-- Ends a live job: the first final state wins, because callers come here only with live ones. `result` is a table of the
-- record's fields about it. Equal requests that follow this job end with it, or one of them takes its place.
local function finish(id, now, state, why, result, ttls)
  local k = key(id)
  local r = redis.call('HMGET', k, 'state', 'flow', 'tenant', 'images', 'reserved', 'fingerprint', 'pixels')
  local flow, tenant, leads = r[2], r[3], same(pool_of(r[2]), r[6])
  if r[1] == QUEUED_ then redis.call('ZREM', queued(flow), id) else redis.call('ZREM', RUNNING, id) end
  redis.call('ZREM', DEADLINES, id)
  count('jobs', tenant, -1)
  count('pixels', tenant, -(tonumber(r[7]) or 0))
  drop_images(r[4], tenant)
  ended = ended + 1
  local expires = text(now + ttls.result)
  local changed = {'state', state, 'ended', text(now), 'expires', expires, 'reason', why.reason or '', 'message',
                   why.message or '', 'field', why.field or '', 'spec', '', 'images', '[]', 'reserved', 0, 'pixels', 0}
  local told
  local freed = tonumber(r[5])
  if state == SUCCEEDED_ then
    local size = result.result_bytes + result.header_size
    if redis.call('HSETNX', RESULT_SIZES, result.result, text(size) .. ' ' .. tenant) == 1 then
      redis.call('ZADD', RESULTS, expires, result.result)
      redis.call('HSET', RESULT_REFS, result.result, 1)
      freed = freed - size
    else
      hold_result(result.result)
    end
    for _, it in ipairs({'held', '1', 'result', result.result, 'result_bytes', result.result_bytes, 'header_size',
                         result.header_size, 'cached', result.cached}) do
      changed[#changed + 1] = it
    end
    told = table.concat({'', result.result, result.result_bytes, result.header_size, result.cached, text(now), expires}, ' ')
  end
  redis.call('HSET', k, unpack(changed))
  if freed ~= 0 then count('result_bytes', tenant, -freed) end
  redis.call('PEXPIRE', k, text(ttls.result + ttls.tombstone + 60000)) -- should nobody reconcile
  redis.call('ZADD', FORGET, text(now + ttls.result + ttls.tombstone), id)
  notify(id, state, told)

  local waiting = redis.call('LRANGE', followers(id), 0, -1)
  if #waiting > 0 then redis.call('DEL', followers(id)) end
  if state ~= SUCCEEDED_ and redis.call('GET', leads) == id then redis.call('DEL', leads) end
  local heir
  for _, other in ipairs(waiting) do
    local o = redis.call('HMGET', key(other), 'state', 'flow', 'sequence', 'leader', 'count')
    if is_live(o[1]) and o[4] == id then
      if state == SUCCEEDED_ then
        finish(other, now, state, why, {result = result.result, result_bytes = result.result_bytes,
                                        header_size = result.header_size, cached = 1}, ttls)
      elseif state == FAILED_ then
        finish(other, now, state, why, nil, ttls)
      elseif heir then
        redis.call('HSET', key(other), 'leader', heir)
        redis.call('RPUSH', followers(heir), other)
      else
        heir = other
        redis.call('HDEL', key(other), 'leader')
        enqueue(o[2], other, o[3], o[5], now)
        redis.call('SET', leads, other, 'PX', text(ttls.result))
      end
    end
  end
  if heir then tell(heir, QUEUED_, 'progress', '') end
end

-- The record as it is now, as HGETALL gives it.
local function record(id) return redis.call('HGETALL', key(id)) end

-- One waiter less. After the last one, what nobody asked to keep goes: a live job is cancelled, a result only answers equal
-- requests any more.
local function leave(id, now, ttls)
  local k = key(id)
  local r = redis.call('HMGET', k, 'state', 'keep', 'result', 'held', 'waiters')
  if not r[1] then return end
  local waiters = tonumber(r[5]) - 1
  local held = waiters <= 0 and r[2] == '0' and not is_live(r[1]) and r[4] == '1'
  redis.call('HSET', k, 'waiters', text(waiters), unpack(held and {'held', '0'} or {}))
  if held then release_result(r[3], now) end
  if waiters <= 0 and r[2] == '0' and is_live(r[1]) then
    finish(id, now, CANCELLED_, {reason = 'ABANDONED', message = 'everybody who waited for the job went away'}, nil, ttls)
  end
end
