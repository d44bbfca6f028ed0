-- Ways in which connections come to be opened, for t/faults/room.t: each is what
-- happens before connections are scarce (its result is passed on) and after.

local kit = require "testkit"

local _M = {}

local function count(results)
    local times, order = {}, {}
    for _, r in ipairs(results) do
        if not times[r] then order[#order + 1] = r end
        times[r] = (times[r] or 0) + 1
    end
    table.sort(order)
    for i, r in ipairs(order) do order[i] = r .. " x " .. times[r] end
    return table.concat(order, ", ")
end

-- f(i), n times at once: how often it returned what.
local function at_once(n, f)
    local threads, results = {}, {}
    for i = 1, n do
        threads[i] = ngx.thread.spawn(function()
            local ok, said, err = pcall(f, i)
            results[i] = ok and said and "ok" or tostring(err or said)
            ngx.sleep(0.2)
        end)
    end
    for i = 1, n do ngx.thread.wait(threads[i]) end
    return count(results)
end

local function new(multiplex)
    local memc = kit.new{ multiplex = multiplex or false }
    memc:set_timeout(10000)
    return memc
end

local function connected(memc, host, port, opts)
    assert(memc:connect(host, port or kit.port, opts))
    return memc
end

-- Private connections.

_M.address = { nil, function()
    return at_once(12, function() return connected(new(), "127.0.0.1"):set("a", 1) end)
end }

_M.name = { nil, function()
    return at_once(12, function() return connected(new(), "one.test"):set("a", 1) end)
end }

_M.names = { nil, function()
    return at_once(12, function(i) return connected(new(), i .. ".short.test"):set("a", 1) end)
end }

local function handshakes()
    return at_once(6, function()
        local memc = connected(new(), "127.0.0.1", tls)
        assert(memc:sslhandshake(nil, "memcached.test", true))
        return memc:set("a", 1)
    end)
end

-- A handshake that no idle connection of the pool was made with.
_M.pooled = { function()
    local memc = connected(new(), "127.0.0.1", tls)
    assert(memc:sslhandshake(nil, "a.wild.test", true))
    assert(memc:set_keepalive())
end, handshakes }

-- A handshake on a connection that was kept alive without one, which cannot do it.
_M.plain = { function()
    local list = {}
    for i = 1, 6 do list[i] = connected(new(), "127.0.0.1", tls) end
    for i = 1, 6 do assert(list[i]:set_keepalive()) end
end, handshakes }

_M.tls = { nil, function()
    return at_once(6, function(i)
        local memc = connected(new(), i .. ".one.test", tls)
        assert(memc:sslhandshake(nil, "memcached.test", true))
        return memc:set("a", 1)
    end)
end }

-- Each place in a pool is free when a name is not found.
_M.queue = { nil, function()
    local function opts(i) return { pool = "queue" .. i, pool_size = 1, backlog = 1 } end
    for i = 1, 6 do
        ngx.thread.spawn(function() new():connect(i .. ".nx.test", kit.port, opts(i)) end)
    end
    return at_once(6, function(i)
        return connected(new(), "127.0.0.1", kit.port, opts(i)):set("a", 1)
    end)
end }

-- Shared connections.

_M.shared = { nil, function()
    return at_once(12, function() return connected(new(2), "127.0.0.1"):set("a", 1) end)
end }

_M.named = { nil, function()
    return at_once(12, function(i) return connected(new(2), i .. ".one.test"):set("a", 1) end)
end }

-- What goes over a connection of its own.
local function own(f)
    return { function()
        local list = {}
        for i = 1, 12 do list[i] = connected(new(2), "127.0.0.1") end
        return list
    end, function(list)
        return at_once(12, function(i) return f(list[i]) end)
    end }
end

_M.verbosity = own(function(memc) return memc:verbosity(1) end)

-- without a connection from before, too
do
    local prepare, run = unpack(_M.verbosity)
    _M.verbosity[2] = function(list) return run(list or prepare()) end
end

_M.raw = own(function(memc)
    assert(memc.sock:send("mn\r\n"))
    return memc.sock:receive() == "MN"
end)

_M.pipeline = own(function(memc)
    memc:init_pipeline()
    memc:set("a", 1)
    memc:verbosity(1)
    local replies, err = memc:commit_pipeline()
    return replies and replies[2][1], err
end)

_M.shared_tls = { function()
    local list = {}
    for i = 1, 6 do list[i] = connected(new(2), "127.0.0.1", tls) end
    return list
end, function(list)
    return at_once(6, function(i)
        assert(list[i]:sslhandshake(nil, "memcached.test", true))
        return list[i]:set("a", 1)
    end)
end }

-- Says on which connection it was asked, after a while.
local function slow_server()
    return kit.fake(function(c)
        while c:line() do
            ngx.sleep(0.1)
            c:send("VERSION " .. c.index .. "\r\n")
        end
    end)
end

-- A further connection is opened while the first one is busy.
_M.further = { function()
    local srv, list = slow_server(), {}
    for i = 1, 3 do list[i] = connected(new(2), "127.0.0.1", srv.port) end
    list[1]:version()
    return { srv, list }
end, function(with)
    local srv, list = unpack(with)
    local threads, said = {}, {}
    for i = 1, 3 do
        threads[i] = ngx.thread.spawn(function() said[i] = list[i]:version() end)
        ngx.sleep(0.03)
    end
    for i = 1, 3 do ngx.thread.wait(threads[i]) end
    srv:close()
    return table.concat(said, ",")
end }

-- An operation waits for another connection, as those there are answer nothing.
_M.queued = { function()
    local srv = kit.fake(function(c)
        while c:line() do
            if c.index > 2 then c:send("VERSION " .. c.index .. "\r\n") end
        end
    end)
    for i = 1, 2 do
        local memc = new(1)
        memc:set_timeout(100)
        connected(memc, "127.0.0.1", srv.port):version()
    end
    return srv
end, function(srv)
    local memc, said = new(1)
    local thread = ngx.thread.spawn(function()
        said = connected(memc, "127.0.0.1", srv.port):version()
    end)
    ngx.sleep(0.05)
    srv.conns[1]:close()
    ngx.thread.wait(thread)
    srv:close()
    return said
end }

-- A server that counts its connections, and an object that was answered.
local function counted()
    local srv = kit.fake(function(c)
        while c:line() do c:send("VERSION " .. c.index .. "\r\n") end
    end)
    local memc = connected(new(1), "127.0.0.1", srv.port)
    memc:version()
    return srv, memc
end

-- Connections are lost, and commands given to them before anybody sees that.
_M.loss = { function()
    local list = {}
    for i = 1, 6 do list[i] = { counted() } end
    return list
end, function(list)
    return at_once(6, function(i)
        local srv, memc = unpack(list[i])
        srv.conns[1]:reset()
        local index, err = memc:version()
        srv:close()
        return index == "2", err or index
    end)
end }

-- The same, long after that.
_M.reopened = { function()
    local list = {}
    for i = 1, 6 do
        local srv, memc = counted()
        srv.conns[1]:close()
        list[i] = { srv, memc }
    end
    ngx.sleep(0.05)
    return list
end, function(list)
    return at_once(6, function(i)
        local srv, memc = unpack(list[i])
        local index, err = memc:version()
        srv:close()
        return index == "2", err or index
    end)
end }

-- Nothing has to be opened.
_M.nothing = { function()
    local memc = connected(new(), "127.0.0.1")
    memc:set("a", 1)
    memc:set_keepalive()
    return connected(new(2), "127.0.0.1"), memc
end, function(shared)
    local results = {}
    for i = 1, 4 do
        local memc = connected(new(), "127.0.0.1")
        results[#results + 1] = memc:set("a", 1) and "ok"
        memc:set_keepalive()
    end
    results[#results + 1] = shared:set("a", 1) and "ok"
    results[#results + 1] = shared:get("a") == "1" and "ok"
    results[#results + 1] = shared:set_keepalive() and "ok"
    results[#results + 1] = connected(new(2), "127.0.0.1"):set("a", 1) and "ok"
    return count(results)
end }

-- For what comes after.

_M.keep = { nil, function()
    local memc = kit.connect()
    memc:set("a", 1)
    return memc:set_keepalive() and "kept"
end }

_M.slow = { nil, function()
    repeat ngx.sleep(0.01) until ngx.worker.exiting()
    ngx.sleep(1)
    return "slow"
end }

return _M
