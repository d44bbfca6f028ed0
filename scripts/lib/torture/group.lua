-- What scripts/torture --group does besides: objects that are connected to an `upstream` block use the
-- servers as one.
--
-- Of the block `torture_off` each key has one home always. So its keys are checked as those of plain
-- objects: an error needs a fault of its home, and a value must be there unless its home has lost it,
-- whatever happens to the other servers. Of `torture_next` keys move while their home is away, and come
-- back to what is there: what is read must be a value that was written for this key, no more.
-- `torture_homes` tells the home of a key, because none of its servers is ever disabled.

local memcached = require "resty.memcached"
local keys = require "torture.keys"

local random, max = math.random, math.max
local mismatch, make, check = keys.mismatch, keys.make, keys.check
local KEYS = 3           -- of each light thread in each block
local LOST = { ["closed"] = true, ["connection reset by peer"] = true, ["broken pipe"] = true }
local UNUSED = 30        -- seconds in which an object may have no command for a server, whose connection it has
local DISABLED = 10      -- seconds after a failure in which a server may be disabled: a trial may be killed

local _M = { blocks = { "torture_off", "torture_next" } }
local OFF = "torture_off"

local by_address = {}
local all = { torture_off = {}, torture_next = {} }

function _M.init()
    keys.usual["no live upstreams"] = true
    for _, server in ipairs(keys.servers) do
        server.address = server.host .. ":" .. server.port
        by_address[server.address] = server
    end
end

local function home_of(name)
    local m = memcached:new()
    assert(m:connect("torture_homes"))
    local address = assert(m:server_of(name))
    m:close()
    return assert(by_address[address])
end

-- Keys -------------------------------------------------------------------------

local function new_key(block, numeric)
    local key = keys.new_key(nil, numeric)
    key.server, key.block = home_of(key.name), block
    local list = all[block]
    list[#list + 1] = not numeric and key or nil
    return key
end

local function own(slot, block, i)
    slot[block] = slot[block] or {}
    local key = slot[block][i]
    if not key or key.busy then
        key = new_key(block, i == 0)
        slot[block][i] = key
    end
    return key
end

local function any_key(block)
    local list = all[block]
    return list[random(10) < 8 and random(math.min(#list, 20)) or random(#list)]
end

local function look(key)
    local seen = keys.look(key)
    -- it may have older values elsewhere, or none
    if key.block ~= OFF then seen.done = 0 end
    return seen
end

local function begin_write(slot, block, i)
    local key = own(slot, block, i)
    key.busy = true
    key.started = key.started + 1
    return key, key.started, key.server.epoch
end

-- Of keys that move, any server may be the cause.
local function suspect(key)
    local worst = key.server
    if key.block == OFF then return worst end
    for _, server in ipairs(keys.servers) do
        if server.faulty or not worst.faulty and server.calm_at > worst.calm_at then worst = server end
    end
    return worst
end

local function may_be_disabled(server)
    return server.faulty or ngx.now() < max(server.failed_at or 0, server.calm_at) + DISABLED
end

local function failed(key, what, err, short)
    local server = suspect(key)
    -- this one may disable it, and others have to do with that
    if err ~= "no live upstreams" then server.failed_at = ngx.now() end
    if err == "no live upstreams" and may_be_disabled(server)
        or LOST[err] and ngx.now() < server.calm_at + UNUSED then
        keys.errors[err] = (keys.errors[err] or 0) + 1
        return nil, err
    end
    keys.judge(server, "group " .. what, err, short)
    return nil, err
end

-- A write: of one that went to no server it is known that it will not happen.
local function write_failed(key, what, err, short)
    if err == "no live upstreams" then key.busy = false end
    return failed(key, what, err, short)
end

-- Operations ---------------------------------------------------------------------

local ops = {}

function ops.get(m, slot, block, short)
    local seen = look(any_key(block) or own(slot, block, random(KEYS)))
    local value, flags, err = m:get(seen.key.name)
    if err then return failed(seen.key, "get", err, short) end
    check("group get", seen, value, flags)
    return 1
end

function ops.set(m, slot, block, short)
    local key, generation, epoch = begin_write(slot, block, random(KEYS))
    local ok, err = m:set(key.name, make(key.name, generation, keys.any_len()), 0, generation % 1000)
    if ok ~= 1 then return write_failed(key, "set", err, short) end
    keys.end_write(key, generation, epoch)
    return 1
end

function ops.delete(m, slot, block, short)
    local key, generation, epoch = begin_write(slot, block, random(KEYS))
    local there = keys.must_be_there(look(key))
    key.deleted = generation
    local ok, err = m:delete(key.name)
    if ok ~= 1 and err ~= "NOT_FOUND" then return write_failed(key, "delete", err, short) end
    if ok ~= 1 and there and key.server.epoch == epoch then mismatch("group delete", key.name, "not found") end
    keys.end_write(key, generation, epoch)
    return 1
end

-- A number is where it was counted, so it needs a home.
function ops.incr(m, slot, block, short)
    if block ~= OFF then return ops.get(m, slot, block, short) end
    local key, generation, epoch = begin_write(slot, block, 0)
    local got, err
    if key.done > 0 and key.epoch == epoch then
        local delta = random(3)
        got, err = m:incr(key.name, delta)
        if not got and err == "NOT_FOUND" and key.server.epoch ~= epoch then
            key.busy, key.epoch = false, -1
            return 1
        end
        if not got and keys.usual[err] then return write_failed(key, "incr", err, short) end
        if tonumber(got) ~= key.number + delta then
            return mismatch("group incr", key.name, "gave", got, err, "after", key.number, "by", delta)
        end
        key.number = key.number + delta
    else
        got, err = m:set(key.name, key.number)
        if got ~= 1 then return write_failed(key, "set", err, short) end
    end
    keys.end_write(key, generation, epoch)
    return 1
end

function ops.cas(m, slot, block, short)
    local i = random(KEYS)
    local key = own(slot, block, i)
    local seen = look(key)
    local value, flags, unique, err = m:gets(key.name)
    if err then return failed(key, "gets", err, short) end
    check("group gets", seen, value, flags)
    if key.busy or not value then return 1 end
    local generation, epoch
    key, generation, epoch = begin_write(slot, block, i)
    local ok
    ok, err = m:cas(key.name, make(key.name, generation, 10), unique, 0, generation % 1000)
    if ok ~= 1 then
        local same = block == OFF and key.server.epoch == seen.now and seen.now % 2 == 0
        if same and (err == "EXISTS" or err == "NOT_FOUND") then
            mismatch("group cas", key.name, "became", err, "between gets and cas")
        end
        if err == "EXISTS" then return 2 end
        if err == "NOT_FOUND" then
            key.busy, key.epoch = false, -1
            return 2
        end
        return write_failed(key, "cas", err, short)
    end
    keys.end_write(key, generation, epoch)
    return 2
end

-- What was answered is right, and an error is one of the servers whose keys are missing.
function ops.multi(m, slot, block, short)
    local list, names, asked = {}, {}, {}
    for i = 1, random(2, 40) do
        local key = any_key(block) or own(slot, block, random(KEYS))
        names[i], list[i], asked[key.name] = key.name, look(key), true
    end
    local found, err, errors = m:get(names)
    -- it may have sent all values, but not the end of the reply
    for address in pairs(block == OFF and errors or {}) do by_address[address].failed_at = ngx.now() end
    for _, seen in ipairs(list) do
        local key = seen.key
        local got = found and found[key.name]
        local server = key.server
        -- a key has no server if its home is disabled
        local theirs = errors and errors[server.address]
            or not found and (errors and "no live upstreams" or err)
        if got then
            check("group multi-get", seen, got[1], got[2])
        elseif theirs then
            failed(key, "multi-get", theirs, short)
        elseif not err or not may_be_disabled(server) then
            check("group multi-get", seen, nil)
        end
    end
    for name in pairs(found or {}) do
        if not asked[name] then mismatch("group multi-get got", name, "unasked") end
    end
    if errors and not err then mismatch("group multi-get: errors without an error") end
    return 1
end

function ops.pipeline(m, slot, block, short)
    m:init_pipeline()
    local todo, writing, broken = {}, {}, {}
    for n = 1, random(2, 20) do
        local i = random(KEYS)
        if random(2) == 1 and not writing[i] then
            writing[i] = true
            local key, generation, epoch = begin_write(slot, block, i)
            m:set(key.name, make(key.name, generation, keys.any_len()), 0, generation % 1000)
            todo[n] = { key = key, generation = generation, epoch = epoch }
        else
            local seen = look(any_key(block) or own(slot, block, i))
            m:get(seen.key.name)
            todo[n] = seen
        end
    end
    local results, err = m:commit_pipeline()
    for n, did in ipairs(todo) do
        local got = results and results[n] or { nil, err, err }
        local failure = got[1] == nil and (got[3] or got[2])
        if failure == "closed" and broken[did.key.server] then
            -- as after any failed command: nothing more is read from there
            keys.errors.closed = (keys.errors.closed or 0) + 1
        elseif failure then
            broken[did.key.server] = failure ~= "no live upstreams"
            local tell = did.generation and write_failed or failed
            tell(did.key, "pipeline", failure, short)
        elseif did.generation then
            if got[1] ~= 1 then mismatch("group pipeline: set", did.key.name, "gave", got[1]) end
            keys.end_write(did.key, did.generation, did.epoch)
        else
            check("group pipeline: get", did, got[1], got[2])
        end
    end
    if results and #results ~= #todo then mismatch("group pipeline:", #results, "results for", #todo) end
    return #todo
end

local by_number = {}
for name, weight in pairs { get = 40, set = 25, delete = 2, incr = 8, cas = 5, multi = 12, pipeline = 8 } do
    for _ = 1, weight do by_number[#by_number + 1] = ops[name] end
end

function _M.pick() return by_number[random(#by_number)] end

-- A light thread was killed that had little time: one of its servers may have failed already, which it
-- did not come to tell.
function _M.ended(slot)
    for _, server in ipairs(slot.short and keys.servers or {}) do server.failed_at = ngx.now() end
end

-- Faults from outside -------------------------------------------------------------

-- A server is marked as down in nginx's own list, or no longer (t/lib/peerdown.c).
function _M.mark(server, is_down)
    local ffi = require "ffi"
    if not _M.declared then ffi.cdef "int peerdown(const char *upstream, const char *server, int down);" end
    _M.declared = true
    for _, block in ipairs(_M.blocks) do
        if ffi.C.peerdown(block, server.address, is_down and 1 or 0) ~= 1 then
            mismatch("no server", server.address, "in", block)
        end
    end
end

return _M
