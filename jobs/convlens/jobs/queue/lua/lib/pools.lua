-- The pools of a model: the workers that serve it with the same weights. A worker is there until its registration expires.

-- Seconds as text, from milliseconds: the scores of POOLS, SINCE, REFUSED and of the workers of a pool.
local function seconds(milliseconds) return string.format('%.3f', milliseconds / 1000) end

local function is_served(pool, now)
  return redis.call('ZCOUNT', serving_key(pool), '(' .. seconds(now), '+inf') > 0
end

-- The other served pools of a pool's model.
local function other_pools(pool, now)
  local model, others = string.match(pool, '^[^@]*'), {}
  for _, other in ipairs(redis.call('ZRANGE', POOLS, '(' .. seconds(now), '+inf', 'BYSCORE')) do
    if other ~= pool and string.match(other, '^[^@]*') == model and is_served(other, now) then others[#others + 1] = other end
  end
  return others
end
