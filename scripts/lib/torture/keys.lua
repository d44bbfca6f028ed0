-- What scripts/torture and scripts/soak know about the keys they use, and hence which
-- answers are right.
--
-- A key has one writer at a time, and each of its values says which key it
-- belongs to and how often it was written before (its generation). So a reader
-- knows whether a value is one it may see: of this key, and not older than the
-- last write that was complete when the reader asked. A write whose fate is
-- unknown (its thread was killed, timed out, lost its connection) may still
-- happen at any time: that key is never written again, another takes its place.

local ffi = require "ffi"
local random, rep = math.random, string.rep
ffi.cdef "int malloc_trim(size_t pad);"
local KEYS = 4           -- of each writer on each server
local CALM_AFTER = 2     -- seconds after a fault in which errors are no surprise

-- { host, port, epoch, faulty, calm_at }: the epoch changes when the server is
-- about to lose what it holds (it becomes odd) and when it is back (even).
local servers = {}

local counts = {
    operations = 0,      -- answered, and the answers checked
    mismatches = 0,
    unexplained = 0,     -- errors without a fault that could be their cause
    killed = 0, exited = 0, aborted = 0, finished = 0, sessions = 0, reused = 0,
}
local errors = {}        -- text => how often
local details = {}       -- of mismatches

-- What scripts/soak does in its own way, because it has several workers.
local keys = { ttl = 0, prefix = "" }

function keys.count(name, n) counts[name] = counts[name] + (n or 1) end

function keys.note(text)
    if #details < 50 then details[#details + 1] = text end
end

local function mismatch(...)
    keys.count("mismatches")
    if #details < 50 then
        local text = {...}
        for i = 1, select("#", ...) do
            text[i] = tostring(text[i])
            if #text[i] > 150 then
                text[i] = text[i]:sub(1, 150) .. "... (" .. #text[i] .. " bytes)"
            end
        end
        keys.note(table.concat(text, " "))
    end
    return 0
end

local usual = {
    ["closed"] = true, ["timeout"] = true, ["connection reset by peer"] = true,
    ["broken pipe"] = true, ["connection refused"] = true,
    ["no such file or directory"] = true, ["too many waiting operations"] = true,
}

-- An operation failed: nil and the error. `short`: it had a timeout that may well
-- have passed.
local function failed(server, what, err, short)
    err = tostring(err)
    keys.judge(server, what, err, short)
    return nil, err
end

function keys.judge(server, what, err, short)
    errors[err] = (errors[err] or 0) + 1
    if not usual[err] then
        mismatch("unexpected error of", what .. ":", err)
    elseif short and err == "timeout" then
        return
    elseif keys.lost_is_usual and err ~= "timeout" then
        return
    elseif not server.faulty and ngx.now() > server.calm_at then
        keys.count("unexplained")
        keys.note(("error without a fault: %s: %s (%s:%s, calm for %.3f s)"):format(what, err, server.host,
            tostring(server.port), ngx.now() - server.calm_at))
    end
end

local function fault(server, what)
    if what == "down" or what == "up" then server.epoch = server.epoch + 1 end
    server.faulty = what == "down" or what == "stop" or what == "mark"
    server.calm_at = ngx.now() + CALM_AFTER
end

-- Keys and values -----------------------------------------------------------

local serial = 0

local function new_key(server, numeric)
    serial = serial + 1
    return {
        name = (numeric and "n" or "k") .. keys.prefix .. serial, server = server,
        started = 0,     -- generation of the last write that began
        done = 0,        -- ... that is known to be complete
        deleted = 0,     -- ... of the last deletion that began
        epoch = -1,      -- when `done` was written; -1: it may have been lost
        stored_at = 0,   -- ... by the clock, because it may expire (keys.ttl)
        busy = false,    -- a write is under way
        number = serial * 1000000,
    }
end

local function make(name, generation, len)
    local head = name .. " " .. generation .. " " .. len .. "|"
    if len == 0 then return head end
    local unit = name .. "." .. generation
    return head .. rep(unit, math.ceil(len / #unit)):sub(1, len)
end

local function begin_write(slot, s, i)
    local key = slot[s][i]
    if key.busy then
        key = new_key(servers[s], i == 0)
        slot[s][i] = key
    end
    key.busy = true
    key.started = key.started + 1
    return key, key.started, servers[s].epoch
end

-- `stored_at`: the command did not make it live longer than it would have.
local function end_write(key, generation, epoch, stored_at)
    key.busy = false
    key.done = generation
    key.stored_at = stored_at or ngx.now()
    key.epoch = key.server.epoch == epoch and epoch % 2 == 0 and epoch or -1
end

local function lasts(key)
    return keys.ttl == 0 or ngx.now() < key.stored_at + keys.ttl / 2
end

-- What a reader has to remember when it asks.
local function look(key)
    return {
        key = key, done = key.done, epoch = key.epoch, now = key.server.epoch, lasts = lasts(key),
    }
end

local function must_be_there(seen)
    local key = seen.key
    return seen.done > 0 and seen.lasts and key.deleted < seen.done and seen.epoch == seen.now
        and key.server.epoch == seen.now
end

local function check(what, seen, value, flags)
    local key = seen.key
    if value == nil then
        if must_be_there(seen) then
            mismatch(what, key.name, "is lost: generation", seen.done, "was stored")
        end
        return
    end
    local name, generation, len = tostring(value):match("^(%S+) (%d+) (%d+)|")
    generation = tonumber(generation)
    if name ~= key.name then
        return mismatch(what, key.name, "got another value:", value)
    end
    if value ~= make(name, generation, tonumber(len)) then
        return mismatch(what, key.name, "got a damaged value:", value)
    end
    if tonumber(flags) ~= generation % 1000 then
        return mismatch(what, key.name, "got flags", flags, "with generation", generation)
    end
    if generation < seen.done then
        return mismatch(what, key.name, "is stale: generation", generation, "after", seen.done)
    end
    if generation > key.started then
        return mismatch(what, key.name, "is from the future:", generation, ">", key.started)
    end
end

-- Frees what nobody refers to. What the C library only keeps for later is no leak either.
local function collect()
    for _ = 1, 4 do collectgarbage() end
    ffi.C.malloc_trim(0)
end

-- Slots: what one light thread writes. A block has those of one request.

local free, all = {}, {}     -- free: by size

local function take_block(size)
    free[size] = free[size] or {}
    local block = table.remove(free[size])
    if block then return block end
    block = {}
    for i = 1, size do
        local slot = {}
        for s, server in ipairs(servers) do
            slot[s] = { [0] = new_key(server, true) }
            for k = 1, KEYS do slot[s][k] = new_key(server) end
        end
        block[i] = slot
        all[#all + 1] = slot
    end
    return block
end

local function give_block(block)
    table.insert(free[#block], block)
end

-- An iterator over all there are.
local function slots()
    local i = 0
    return function()
        i = i + 1
        return all[i]
    end
end

-- Mostly one of the few keys that everybody reads.
local function any_key(s)
    return all[random(10) < 8 and random(8) or random(#all)][s][random(KEYS)]
end

local function any_len()
    local r = random(2000)
    if r > 20 then return random(0, 100) end
    if r > 1 then return random(1000, 20000) end
    return random(50000, 500000)
end

for name, what in pairs {
    servers = servers, counts = counts, errors = errors, details = details, usual = usual, KEYS = KEYS,
    mismatch = mismatch, failed = failed, fault = fault, make = make, begin_write = begin_write,
    end_write = end_write, lasts = lasts, look = look, must_be_there = must_be_there, check = check,
    new_key = new_key, take_block = take_block, give_block = give_block, slots = slots, any_key = any_key, any_len = any_len,
    collect = collect,
} do keys[name] = what end

return keys
