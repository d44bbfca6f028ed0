-- The load of scripts/soak, which runs it in nginx: light threads, timers and the
-- phases of a request use memcached in every way, and check what comes back
-- (torture/ops.lua). What all workers have to know together, and what has to
-- outlive them, is in the dictionary `soak`.

local memcached = require "resty.memcached"
local keys = require "torture.keys"
local operations = require "torture.ops"
local ffi = require "ffi"

ffi.cdef "extern volatile uintptr_t ngx_current_msec;"

local random = math.random
local servers, mismatch, failed = keys.servers, keys.mismatch, keys.failed
local dict = ngx.shared.soak

local THREADS = 32
local PATIENT = 20000    -- ms; longer than anything is held up
local MEDIUM = 1000      -- ms; shorter than some of the stalls
local SHORT = 20         -- ms; no surprise if that is over
local STUCK = 40         -- seconds
local UNSETTLED = 10     -- seconds after a failure in which a server of a group may be disabled
local LEDGERS = 4        -- counters on each server, see ops.ledger
local TTL = 300          -- seconds; hence memcached forgets the keys of workers that are gone

local _M = {}

-- What torture/keys.lua wants --------------------------------------------------

keys.ttl = TTL

function keys.count(name, n) dict:incr(name, n or 1, 0) end

function keys.note(text)
    if (dict:llen("notes") or 0) < 50 then dict:lpush("notes", text) end
end

-- The driver knows what happened to which server when: it judges errors. `how` says
-- when the connection was last known to be good, when the operation began, and
-- its timeout.
function keys.judge(server, what, err, how)
    ngx.update_time()
    local now = ngx.now()
    if err == "timeout" then
        if now < how.began + how.timeout / 1000 - 0.02 then
            mismatch(what, "on", server.name, "timed out", how.timeout, "ms after",
                now - how.began, "s")
        end
        if how.timeout <= SHORT then
            -- of a group, that may disable a server
            if server.group then dict:set("disturbed", now) end
            keys.count("short timeouts")
            err = "short timeout"
        end
    end
    if err == "no live upstreams" and now < (dict:get("disturbed") or 0) + UNSETTLED then
        return keys.count("disabled by short timeouts")
    end
    local line = ("%d %.3f %.3f %s in worker %d, reused %d: %s"):format(server.index, how.from, now,
        what, ngx.worker.pid(), how.reused, err)
    if not dict:lpush("errors", line) then keys.count("errors dropped") end
end

-- Operations -------------------------------------------------------------------

local ops = operations.ops

-- Counters that all workers increase: what comes back must be more than anybody
-- has seen before, and in the end the sum must be right.
function ops.ledger(m, slot, s, how)
    if servers[s].loses then return ops.get(m, slot, s, how) end
    local name = "ledger" .. random(LEDGERS)
    local id = s .. name
    local seen = dict:get("seen " .. id) or 0
    dict:incr("try " .. id, 1, 0)
    local got, err = m:incr(name, 1)
    if not got then return failed(servers[s], "ledger", err, how) end
    dict:incr("ok " .. id, 1, 0)
    local number = tonumber(got)
    if not number or number <= seen then mismatch(id, "became", got, "but was", seen, "before") end
    if number > (dict:get("seen " .. id) or 0) then dict:set("seen " .. id, number) end
    return 1
end

function ops.touch(m, slot, s, how)
    local seen = keys.look(slot[s][random(keys.KEYS)])
    local ok, err = m:touch(seen.key.name, TTL)
    if ok ~= 1 and err ~= "NOT_FOUND" then return failed(servers[s], "touch", err, how) end
    if ok ~= 1 and keys.must_be_there(seen) then mismatch("touch", seen.key.name, "not found") end
    return 1
end

local pick = operations.picker {
    own = 100, set = 160, delete = 10, multi = 60, incr = 40, cas = 40, add = 20, pipeline = 60,
    rare = 2, ledger = 60, touch = 10,
}

-- Of a group each command may fail for itself.
function ops.group_pipeline(m, slot, s, how)
    local todo, writing, homes = {}, {}, {}
    for n = 1, random(2, 20) do
        local i = random(keys.KEYS)
        if random(2) == 1 and not writing[i] then
            writing[i] = true
            local key, generation, epoch = keys.begin_write(slot, s, i)
            todo[n] = { key = key, generation = generation, epoch = epoch }
        else
            todo[n] = keys.look(keys.any_key(s))
        end
        homes[n] = m:server_of(todo[n].key.name) or "none"
    end
    m:init_pipeline()
    for _, did in ipairs(todo) do
        local name, generation = did.key.name, did.generation
        if generation then
            m:set(name, keys.make(name, generation, keys.any_len()), keys.ttl, generation % 1000)
        else
            m:get(name)
        end
    end
    local results, err = m:commit_pipeline()
    local broken, why = {}, nil
    for n, did in ipairs(todo) do
        local got = results and results[n] or { nil, err, err }
        local failure = got[1] == nil and (got[3] or got[2])
        if failure == "closed" and broken[homes[n]] then
            -- as after any failed command: nothing more is read from there
            keys.count("closed behind a failure")
        elseif failure then
            -- not if nothing was sent
            broken[homes[n]] = failure ~= "no live upstreams"
            why = why or failure
            failed(servers[s], "pipeline", failure, how)
        elseif did.generation then
            if got[1] ~= 1 then mismatch("pipeline: set", did.key.name, "gave", got[1]) end
            keys.end_write(did.key, did.generation, did.epoch)
        else
            keys.check("pipeline: get", did, got[1], got[2])
        end
    end
    if results and #results ~= #todo then mismatch("pipeline:", #results, "results for", #todo) end
    if why then return nil, why end
    return #todo
end

-- Keys of a group have different servers: a part of a list may be missing.
local group_pick = operations.picker {
    own = 100, set = 160, delete = 10, multi = 60, incr = 40, cas = 40, add = 20, touch = 10,
    group_pipeline = 60,
}

-- Each operation has one end: a result, or its light thread is gone.

local function begin(slot, what)
    slot.flight, slot.since = what, ngx.now()
    dict:incr("started", 1, 0)
end

local function finish(slot)
    if not slot.flight then mismatch("an operation ended twice") end
    slot.flight = false
    dict:incr("ended", 1, 0)
end

local function give_up(slot)
    if not slot.flight then return end
    slot.flight = false
    dict:incr("given up", 1, 0)
end

-- A time that passes; nothing may wake who waits for it. It passes by the clock of nginx's timers, which the
-- kernel sets forward only now and then: on a busy machine it is tens of milliseconds late.
local function nap(seconds)
    local from = ffi.C.ngx_current_msec
    local woken = select("#", ngx.sleep(seconds)) > 0
    local passed = tonumber(ffi.C.ngx_current_msec - from)
    -- one for the fraction that ngx.sleep cuts off
    if woken or passed < seconds * 1000 - 1 then
        mismatch("a sleep of", seconds, "s ended after", passed, "ms")
    end
end

-- Sessions ---------------------------------------------------------------------

local shares = 0

local function any_server()
    local at = random(shares)
    for s, server in ipairs(servers) do
        at = at - server.share
        if at <= 0 then return s end
    end
end

local function timeout_of(server, medium)
    if server.quiet then return PATIENT end
    -- in a group each may disable a server, which explains whatever fails then
    if random(server.group and 5000 or 100) == 1 then return random(SHORT) end
    return medium and MEDIUM or PATIENT
end

-- An object that is connected, or nil. `how` is for keys.judge.
local function connect(slot, server, how, mode)
    local opts
    if mode == "shared" and random(20) == 1 then opts = { multiplex = false } end
    local m = assert(memcached:new(opts))
    m:set_timeout(how.timeout)
    begin(slot, "connect")
    local ok, err = m:connect(server.host, server.port)
    finish(slot)
    if not ok then return failed(server, "connect", err, how) end
    keys.count("sessions")
    if m:get_reused_times() > 0 then keys.count("reused") end
    if server.tls and m:get_reused_times() == 0 then
        begin(slot, "sslhandshake")
        how.began = ngx.now()
        ok, err = m:sslhandshake(false, "memcached.test", true)
        finish(slot)
        if not ok then return failed(server, "sslhandshake", err, how) end
    end
    how.reused = m:get_reused_times()
    return m
end

-- One object from connect to its end; false if the server could not be reached.
local function session(slot, run, most)
    local s = any_server()
    local server = servers[s]
    local medium = random(10) == 1
    local now = ngx.now()
    local how = { from = now, began = now, timeout = timeout_of(server, medium), reused = 0 }
    local m = connect(slot, server, how, run.mode)
    if not m then return false end
    for _ = 1, random(most) do
        if ngx.now() > run.till then break end
        if run.exits then
            run.exits = false
            dict:incr("exited", 1, 0)
            ngx.exit(random(2) == 1 and 200 or 444)
        end
        -- a connection of a group may not have been used since the session began
        if not server.group then how.from = how.began end
        how.began = ngx.now()
        how.timeout = timeout_of(server, medium)
        m:set_timeout(how.timeout)
        begin(slot, "operation")
        local done, err = (server.group and group_pick or pick)()(m, slot, s, how)
        finish(slot)
        if server.group and not done then
            -- it stays connected to the others
            done = 0
            nap(random(40) / 1000)
        elseif err == "timeout" then
            local _, _, again = m:get("after")
            if again ~= "closed" then mismatch("after a timeout:", again) end
        end
        if not done or done < 0 then return true end
        keys.count("operations", done)
    end
    local which = random(20)
    if which <= 16 then
        local ok, err = m:set_keepalive()
        if not ok and server.quiet then failed(server, "set_keepalive", err, how) end
    elseif which <= 19 then
        m:close()
    end
    return true
end

local function guard(slot, f, ...)
    local ok, err = pcall(f, ...)
    if ok then return end
    mismatch("a Lua error:", err)
    give_up(slot)
end

local function work(slot, run)
    guard(slot, function()
        while ngx.now() < run.till do
            if not session(slot, run, 200) then nap(random(50) / 1000) end
        end
    end)
    run.alive = run.alive - 1
end

-- The same outside of requests.
local function timer(premature, mode, seconds)
    if premature then return end
    keys.count("timers")
    local block = keys.take_block(2)
    local run = { till = ngx.now() + seconds, alive = 2, mode = mode }
    local thread = ngx.thread.spawn(work, block[1], run)
    work(block[2], run)
    ngx.thread.wait(thread)
    keys.give_block(block)
end

-- Takes one of what the driver has laid down.
local function take(name)
    if (dict:get(name) or 0) <= 0 then return false end
    if dict:incr(name, -1, 0) >= 0 then return true end
    dict:incr(name, 1, 0)
    return false
end

-- What nginx calls -------------------------------------------------------------

-- `list`: { name, host, port, share, loses = true, quiet = true, tls = true, group = true }
function _M.init(list, seed, plant)
    _M.seed = seed
    for i, server in ipairs(list) do
        shares = shares + server.share
        server.index, server.epoch = i, 0
        if server.group then keys.usual["no live upstreams"] = true end
        if server.loses then
            server.epoch = nil
            setmetatable(server, { __index = function(_, name)
                if name == "epoch" then return dict:get("epoch " .. i) or 0 end
            end })
        end
        servers[i] = server
    end
    if plant ~= "" then _M.plant = require("soak.plant")(plant, _M, servers) end
end

-- Reports what a worker that rests has left, each time that the driver asks.
function _M.init_worker()
    local number = dict:incr("workers", 1, 0)
    math.randomseed(_M.seed + number)
    keys.prefix = number .. "."     -- a worker's keys are its own
    local collected = 0
    assert(ngx.timer.every(0.2, function()
        local wanted = dict:get("collect") or 0
        for slot in keys.slots() do
            if slot.flight and ngx.now() > slot.since + STUCK then
                mismatch(slot.flight, "has no result after", STUCK, "s")
                give_up(slot)
            end
        end
        if wanted == collected then return end
        collected = wanted
        keys.collect()
        dict:set("rest " .. ngx.worker.pid(), ("%d %d %d %d"):format(wanted,
            collectgarbage("count"), ngx.timer.running_count(), ngx.timer.pending_count()))
    end))
end

-- The phases ahead of content: a short session each.
function _M.phase()
    local block = ngx.ctx.block
    if not block then
        block = keys.take_block(THREADS + 1)
        ngx.ctx.block = block
        ngx.ctx.state = "aborted"
    end
    keys.count("phases")
    local slot = block[THREADS + 1]
    guard(slot, session, slot, { till = ngx.now() + 1, mode = ngx.var.mode }, 10)
end

-- seconds= so long
function _M.run()
    local seconds = tonumber(ngx.var.arg_seconds)
    local run = { till = ngx.now() + seconds, alive = THREADS, mode = ngx.var.mode }
    local block = ngx.ctx.block
    local threads = {}
    for i = 1, THREADS do threads[i] = ngx.thread.spawn(work, block[i], run) end
    if random(3) == 1 then
        local ok, err = ngx.timer.at(random(50) / 1000, timer, run.mode, seconds)
        if not ok and err ~= "process exiting" then mismatch("ngx.timer.at:", err) end
    end
    while run.alive > 0 do
        nap(random(10) / 1000)
        while ngx.now() < run.till and take("kills") do
            local i = random(THREADS)
            if ngx.thread.kill(threads[i]) then
                give_up(block[i])
                keys.count("killed")
                threads[i] = ngx.thread.spawn(work, block[i], run)
            end
        end
        if ngx.now() < run.till - 0.05 and take("exits") then run.exits = true end
    end
    ngx.ctx.state = "finished"
    ngx.print("done")
end

-- The request has ended, however that came about.
function _M.log()
    local block = ngx.ctx.block
    if not block then return end
    local ok, err = pcall(memcached.new, memcached)
    if ok or not err:find("API disabled in the context of log_by_lua", 1, true) then
        mismatch("new() in log_by_lua:", err)
    end
    for _, slot in ipairs(block) do give_up(slot) end
    keys.give_block(block)
    keys.count(ngx.ctx.state)
end

-- What the driver asks -----------------------------------------------------------

-- name= becomes n= more
function _M.add()
    local name = ngx.var.arg_name:gsub("_", " ")
    ngx.print((dict:incr(name, tonumber(ngx.var.arg_n), 0)))
end

-- Has nginx not use a server of the group (name=mark), or use it again; n= is its port.
function _M.mark()
    if not _M.declared then ffi.cdef "int peerdown(const char *upstream, const char *server, int down);" end
    _M.declared = true
    local address = "127.0.0.1:" .. ngx.var.arg_n
    ngx.print(ffi.C.peerdown("soak_group", address, ngx.var.arg_name == "mark" and 1 or 0))
end

-- Lines of "name<tab>value"; "!<tab>text" of what was wrong; "?<tab>error" to be judged.
function _M.status()
    for _, name in ipairs(dict:get_keys(0)) do
        local value = dict:get(name)
        if name ~= "notes" and name ~= "errors" then ngx.say(name, "\t", value) end
    end
    for name, mark in pairs { notes = "!", errors = "?" } do
        for _ = 1, 5000 do
            local text = dict:rpop(name)
            if not text then break end
            ngx.say(mark, "\t", (text:gsub("%c", "?")))
        end
    end
end

local function ledgers(f)
    for s, server in ipairs(servers) do
        if not server.loses then
            local m = assert(memcached:new())
            m:set_timeout(PATIENT)
            assert(m:connect(server.host, server.port))
            for i = 1, LEDGERS do f(m, server, "ledger" .. i, s .. "ledger" .. i) end
            m:close()
        end
    end
end

function _M.open_ledgers()
    ledgers(function(m, _, name) assert(m:set(name, 0)) end)
    ngx.print("open")
end

-- A counter has at least all that was confirmed, and no more than was tried.
function _M.check_ledgers()
    ledgers(function(m, server, name, id)
        local value = tonumber((m:get(name))) or -1
        local ok, try = dict:get("ok " .. id) or 0, dict:get("try " .. id) or 0
        if value < ok or value > try then
            mismatch(name, "of", server.name, "is", value, "after", ok, "of", try, "increments")
        end
        keys.count("increments", ok)
        keys.count("increments without answer", try - ok)
    end)
    ngx.print("checked")
end

return _M
