-- The names of all keys and channels, and the constants that fields hold. schema.md says what each key is for.
-- They are written out: a concatenation would cost something in each call.
local JOBS, RUNNING, DEADLINES, SEQUENCE = 'convlens:jobs', 'convlens:running', 'convlens:deadlines', 'convlens:sequence'
-- Each ended job is in one of these. KEPT: its result is promised, or a caller waits for it. TOMBSTONES: its result was promised
-- and has expired. ANSWERED: nobody asked to keep it, and nobody waits any more. The last two may be evicted early.
local KEPT, TOMBSTONES, ANSWERED = 'convlens:kept', 'convlens:tombstones', 'convlens:answered'
local USAGE, THROUGHPUT, GARBAGE = 'convlens:usage', 'convlens:throughput', 'convlens:garbage'
local QUEUES, POOLS, SINCE, UNSERVED = 'convlens:queues', 'convlens:pools', 'convlens:pools-since', 'convlens:pools-unserved'
local REFUSED, RECONCILER = 'convlens:refused', 'convlens:reconciler'
local NOTICES, ENDED, NEW_FLOWS = 'convlens:notices', 'convlens:ended', 'convlens:new-flows' -- channels
local IMAGES, RESULTS, CACHED = 'convlens:images', 'convlens:results', 'convlens:cached'
local POISONED, POISONED_INBOX = 'convlens:poisoned', 'convlens:poisoned-inbox'
local STATE = {QUEUED = '1', RUNNING = '2', SUCCEEDED = '3', FAILED = '4', CANCELLED = '5', EXPIRED = '6'}
local WEIGHTS = {['1'] = 16, ['2'] = 4, ['3'] = 1} -- the shares of the priorities high, normal and low
local LIST_KINDS = {'', 'many', 'huge'} -- the message lists of a pool: see messages.lua

local function job_key(id) return 'convlens:job:' .. id end
local function tenant_jobs_key(tenant) return 'convlens:jobs:' .. tenant end
local function evictable_key(tenant) return 'convlens:evictable:' .. tenant end
local function waiters_key(id) return 'convlens:waiters:' .. id end
local function rate_key(tenant) return 'convlens:rate:' .. tenant end
local function dedup_key(pool, fingerprint) return 'convlens:dedup:' .. pool .. ':' .. fingerprint end
local function group_key(number) return 'convlens:group:' .. number end
local function claim_key(secret) return 'convlens:claim:' .. secret end
local function flows_key(pool) return 'convlens:flows:' .. pool end
local function tags_key(pool) return 'convlens:tags:' .. pool end
local function queued_key(flow) return 'convlens:queued:' .. flow end
local function messages_key(pool, kind) return 'convlens.' .. pool .. (kind == '' and '' or '/' .. kind) end
local function pack_key(name) return 'convlens:pack:' .. name end
local function result_key(name) return 'convlens:result:' .. name end
local function card_key(pool) return 'convlens:card:' .. pool end
local function serving_key(pool) return 'convlens:serving:' .. pool end
local function pool_of(flow) return string.match(flow, '^[^/]*') end
