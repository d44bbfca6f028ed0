-- For t/phases/coroutines.t: a coroutine of each kind waits for memcached in each
-- state, and ends in each way.

local _M = { ports = {} }

local memcached = require "resty.memcached"

-- Names of cases whose coroutine went on behind the wait.
local went_on = {}

local function new(ms)
    local m = memcached:new()
    m:set_timeout(ms)
    return m
end

local function connected(port, ms, opts)
    local m = new(ms)
    local ok, err = m:connect("127.0.0.1", port, opts)
    return ok and m, err
end

-- f(m), where m is connected.
local function with(port, ms, f)
    return function()
        local m, err = connected(port, ms)
        if not m then return nil, nil, err end
        return f(m)
    end
end

-- What a case waits for; the entry thread may prepare it.
local states = {}

function states.reading(_, ms)
    return with(_M.ports.slow, ms, function(m) return m:get("late") end)
end

function states.list(_, ms)
    return with(_M.ports.slow, ms, function(m)
        local found, err = m:get({ "late", "late2" })
        return found and found.late and found.late[1], nil, err
    end)
end

function states.pipeline(_, ms)
    return with(_M.ports.slow, ms, function(m)
        m:init_pipeline()
        m:get("late")
        m:get("late2")
        local replies, err = m:commit_pipeline()
        local first = replies and replies[1] or { nil, nil, err }
        return first[1], nil, first[3]
    end)
end

function states.raw(_, ms)
    return with(_M.ports.slow, ms, function(m)
        local ok, err = m.sock:send("get late\r\n")
        if not ok then return nil, nil, err end
        local line, err = m.sock:receive()
        return line and m.sock:receive(), nil, err
    end)
end

function states.connecting(_, ms)
    return function() return nil, nil, select(2, new(ms):connect("127.0.0.1", _M.ports.full)) end
end

function states.resolving(_, ms)
    return function() return nil, nil, select(2, new(ms):connect("x.never.test", _M.ports.slow)) end
end

function states.handshake(_, ms)
    return with(_M.ports.silent, ms, function(m)
        return nil, nil, select(2, m:sslhandshake(nil, nil, false))
    end)
end

-- a place in a full pool, or in shared mode room for an operation
function states.queued(name, ms)
    local opts = { pool = name, pool_size = 1, backlog = 10 }
    local holder = assert(connected(_M.ports.silent, 1000, opts))
    local waits = ngx.thread.spawn(function() holder:get("held") end)
    return function()
        local m = new(ms)
        local ok, err = m:connect("127.0.0.1", _M.ports.silent, opts)
        if not ok then return nil, nil, err end
        return m:get("queued")
    end, function() ngx.thread.kill(waits) end
end

-- How the waiting function is run.
local kinds = {}

function kinds.thread(f) return f end

function kinds.wrap(f)
    return function() return coroutine.wrap(f)() end
end

function kinds.create(f)
    return function() return select(2, coroutine.resume(coroutine.create(f))) end
end

function kinds.wrap_in_wrap(f)
    return kinds.wrap(kinds.wrap(kinds.wrap(f)))
end

-- a generator that has yielded before
function kinds.generator(f)
    return function()
        local gen = coroutine.wrap(function()
            coroutine.yield("first")
            return f()
        end)
        gen()
        return gen()
    end
end

function kinds.thread_in_wrap(f)
    return kinds.wrap(function() return select(2, ngx.thread.wait(ngx.thread.spawn(f))) end)
end

-- one of Lua's own, which ngx_lua does not know
function kinds.own(f)
    return function() return coroutine._wrap(f)() end
end

kinds.entry = kinds.thread
kinds.entry_wrap = kinds.wrap
kinds.entry_wrap_in_wrap = kinds.wrap_in_wrap

local function is_entry(kind) return kind:find("^entry") end

-- How it ends: what the others in the request do while it waits.
local ends = {}

function ends.kill(thread) assert(ngx.thread.kill(thread)) end

function ends.kill_gc(thread)
    assert(ngx.thread.kill(thread))
    collectgarbage()
    collectgarbage()
end

function ends.exit()
    ngx.say("exit")
    return ngx.exit(200)
end

-- ends the phase and what runs in it
function ends.leave() return ngx.exit(ngx.OK) end

function ends.exec() return ngx.exec("/exec") end

function ends.error()
    ngx.say("error")
    ngx.flush(true)
    error("on purpose")
end

-- these need nobody else
function ends.answer() end
function ends.timeout() end
function ends.abort() ngx.sleep(0.2) end
function ends.finish() end

local function shown(value, _, err) return tostring(value or err) end

-- One case. What it answers: what the waiting function returned, or "ended".
function _M.run(args, say)
    local kind, how, state, name = args.kind, args.how, args.state, args.name
    local ms = how == "timeout" and 30 or 1000
    local f, done = states[state](name, ms)
    local result
    local body = kinds[kind](function()
        result = shown(f())
        went_on[name] = result
        return result
    end)
    if is_entry(kind) then
        if how ~= "answer" and how ~= "timeout" and how ~= "abort" then
            ngx.thread.spawn(function()
                ngx.sleep(0.01)
                ends[how]()
            end)
        end
        body()
        return say(result)
    end
    local thread = ngx.thread.spawn(body)
    if how == "answer" or how == "timeout" then
        ngx.thread.wait(thread)
        return say(result)
    end
    -- about when the server answers, or a moment before
    ngx.sleep((tonumber(args.after) or 10) / 1000)
    ends[how](thread)
    if how:find("^kill") then
        local before = result
        thread = nil
        -- the server's answer comes, and killed threads are looked for
        ngx.sleep(0.15)
        if done then done() end
        if result ~= before then return say("went on: " .. result) end
        return say("ended")
    end
    if how == "finish" then
        if done then done() end
        return say("ended")
    end
    return say("ended")
end

-- The same in a timer.
function _M.timer(args)
    local said
    assert(ngx.timer.at(0, function()
        local ok, err = pcall(_M.run, args, function(text) said = text end)
        if not ok then said = err end
    end))
    ngx.sleep(0.25)
    return tostring(said)
end

-- Whether two objects get what they ask for.
function _M.works(port)
    local a, b = assert(connected(port, 2000)), assert(connected(port, 2000))
    local v = tostring(ngx.now()) .. math.random()
    assert(a:set("a", v))
    assert(b:set("b", v .. "b"))
    local ta = ngx.thread.spawn(function() return (a:get("a")) end)
    local tb = ngx.thread.spawn(function() return (coroutine.wrap(function() return (b:get("b")) end)()) end)
    local _, va = ngx.thread.wait(ta)
    local _, vb = ngx.thread.wait(tb)
    a:set_keepalive()
    b:set_keepalive()
    return va == v and vb == v .. "b" and "works" or tostring(va) .. " " .. tostring(vb)
end

-- What went on of these cases, long after they ended.
function _M.gone_on()
    local names = {}
    for name, result in pairs(went_on) do names[#names + 1] = name .. "=" .. result end
    table.sort(names)
    return table.concat(names, "\n")
end

return _M
