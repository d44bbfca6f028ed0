-- What scripts/torture --late does: nothing of an operation may be sent once Lua knows its result.
--
-- Each operation has a serial, and what it sends is marked with it: values are marks, over and
-- over, and some keys are. t/lib/latewrite.c, preloaded into nginx, sees all that is sent. It is
-- told when an operation is over (answered, failed, timed out, its light thread killed, its
-- request ended), and notes what is sent of it after that.
--
-- It tells as well whether anything of a value was sent. So keys are written again after writes
-- that failed, and a reader knows what it may see: nothing older than what was acknowledged before
-- it asked, but for writes that failed and of which something was sent, as these may be executed at
-- any time; and never one of which nothing was sent.

local ffi = require "ffi"
local keys = require "torture.keys"

ffi.cdef [[
    void latewrite_over(unsigned int serial);
    int latewrite_sent(unsigned int serial);
]]

local random, C = math.random, ffi.C
local servers, mismatch = keys.servers, keys.mismatch
local KEYS = 3       -- of each light thread on each server

local _M = {}

local serials, all = 0, {}

local function mark(serial) return ("Lw%010dw"):format(serial) end

-- Operations ------------------------------------------------------------------

-- What of a slot's operation is known now: all of it is over. `stored`: of these keys.
local function over(slot, stored)
    local serial = slot.serial
    if not serial then return end
    C.latewrite_over(serial)
    slot.serial = nil
    local sent = C.latewrite_sent(serial) ~= 0
    for _, key in ipairs(slot.writes) do
        if stored and stored[key] then
            key.acked = serial
        elseif sent then
            key.maybe[serial] = true
        else
            key.never[serial] = true
        end
    end
    slot.writes = {}
end

_M.ended = over

local function begin(slot)
    serials = serials + 1
    slot.serial, slot.writes = serials, {}
    return serials, mark(serials)
end

-- A key of the slot's own, one that is not written by this operation yet.
local function own_key(slot, s)
    slot.late = slot.late or {}
    local own = slot.late[s]
    if not own then
        own = {}
        for i = 1, KEYS do
            own[i] = { name = "late" .. #all + 1, acked = 0, maybe = {}, never = {}, server = s }
            all[#all + 1] = own[i]
        end
        slot.late[s] = own
    end
    local key = own[random(KEYS)]
    for _, other in ipairs(slot.writes) do
        if other == key then return nil end
    end
    slot.writes[#slot.writes + 1] = key
    return key
end

local function value_of(text)
    local r = random(1000)
    local times = r <= 850 and random(40) or r <= 980 and random(1500) or random(10000, 100000)
    return text:rep(times)
end

local function any_key(s)
    for _ = 1, 20 do
        local key = all[random(#all)]
        if key and key.server == s then return key end
    end
end

local function check(key, acked, value)
    if value == nil then return end
    local serial = tonumber(value:match("^Lw(%d+)w"))
    if not serial or value ~= mark(serial):rep(#value / #mark(serial)) then
        return mismatch("late:", key.name, "is damaged:", value)
    end
    if key.never[serial] then
        return mismatch("late:", key.name, "has what was never sent:", serial)
    end
    if serial < acked and not key.maybe[serial] then
        return mismatch("late:", key.name, "is stale:", serial, "after", acked)
    end
    if serial > serials then mismatch("late:", key.name, "is from the future:", serial) end
end

local function failed(s, what, err, short) return keys.failed(servers[s], what, err, short) end

local ops = {}

function ops.set(m, slot, s, short)
    local _, text = begin(slot)
    local key = own_key(slot, s)
    local ok, err = m:set(key.name, value_of(text))
    over(slot, ok == 1 and { [key] = true })
    if ok ~= 1 then return failed(s, "late set", err, short) end
    return 1
end

-- One key, and one that tells whose the command is.
function ops.get(m, slot, s, short)
    local _, text = begin(slot)
    local key = any_key(s)
    local acked = key and key.acked
    local found, err
    if random(3) == 1 or not key then
        local _, _, failure = m:get(text)
        found, err = not failure and {}, failure
    else
        found, err = m:get{ key.name, text }
    end
    over(slot)
    if not found then return failed(s, "late get", err, short) end
    if key and found[key.name] then check(key, acked, found[key.name][1]) end
    return 1
end

-- What others ask for, too.
function ops.hot(m, _, s, short)
    local key = any_key(s)
    if not key then return 1 end
    local acked = key.acked
    local value, _, err = m:get(key.name)
    if err then return failed(s, "late get", err, short) end
    check(key, acked, value)
    return 1
end

function ops.pipeline(m, slot, s, short)
    local _, text = begin(slot)
    m:init_pipeline()
    local todo = {}
    for n = 1, random(2, 8) do
        local key = random(2) == 1 and own_key(slot, s)
        if key then
            m:set(key.name, value_of(text))
            todo[n] = key
        else
            m:get(text)
            todo[n] = false
        end
    end
    local results, err = m:commit_pipeline()
    local stored = {}
    for n, key in ipairs(todo) do
        local got = results and results[n] or {}
        if key and got[1] == 1 then stored[key] = true end
        err = err or got[1] == nil and (got[3] or got[2]) or nil
    end
    over(slot, stored)
    if err then return failed(s, "late pipeline", err, short) end
    return #todo
end

local weights = { "set", "set", "set", "get", "get", "hot", "hot", "pipeline" }

function _M.pick() return ops[weights[random(#weights)]] end

return _M
