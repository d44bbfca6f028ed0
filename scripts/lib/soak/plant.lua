-- Faults that scripts/soak --prove plants, to see that it notices them.

local random = math.random

-- Something in memcached's table of methods is replaced by `make(old)`.
local function wrap(name, make)
    local memcached = require "resty.memcached"
    memcached[name] = make(memcached[name])
end

-- Calls `f` about once in `n` single gets.
local function now_and_then(n, f)
    wrap("get", function(get)
        return function(m, key, ...)
            if type(key) == "string" and random(n) == 1 then
                local got = { f(m, key) }
                if got[1] ~= nil or got[3] ~= nil then return unpack(got, 1, 3) end
            end
            return get(m, key, ...)
        end
    end)
end

local plants = {}

-- the value of another key
function plants.wrong()
    local value, flags
    wrap("get", function(get)
        return function(m, key, ...)
            local v, f, err = get(m, key, ...)
            if type(key) == "string" and v then
                if value and random(2000) == 1 then return value, flags end
                value, flags = v, f
            end
            return v, f, err
        end
    end)
end

-- a write that is said to be done and is not
function plants.unwritten()
    wrap("set", function(set)
        return function(m, key, value, ...)
            if not m._reqs and #tostring(value) > 4 and random(1000) == 1 then return 1 end
            return set(m, key, value, ...)
        end
    end)
end

-- an increment that is executed twice
function plants.twice()
    wrap("incr", function(incr)
        return function(m, key, ...)
            if key:match("^ledger") and random(200) == 1 then
                local value, err = incr(m, key, ...)
                if value then incr(m, key, ...) end
                return value, err
            end
            return incr(m, key, ...)
        end
    end)
end

-- an operation that has no result
function plants.lost()
    now_and_then(20000, function() ngx.sleep(100000) end)
end

-- an error without a cause
function plants.error()
    now_and_then(5000, function() return nil, nil, "closed" end)
end

-- one that a server can be blamed for, but at another time
function plants.refused()
    now_and_then(500, function() return nil, nil, "connection refused" end)
end

function plants.early()
    now_and_then(5000, function() return nil, nil, "timeout" end)
end

function plants.fd()
    local kept = {}
    now_and_then(5000, function() kept[#kept + 1] = io.open("/dev/null") end)
end

-- a connection to a server that stays open
function plants.connection(_, servers)
    now_and_then(5000, function()
        local server = servers[1]
        local sock = ngx.socket.tcp()
        sock:connect(server.host, server.port)
        sock:setkeepalive(1000000)
    end)
end

function plants.memory()
    local ffi = require "ffi"
    ffi.cdef "void *malloc(size_t);"
    now_and_then(1, function() ffi.fill(ffi.C.malloc(1000), 1000, 1) end)
end

function plants.lua_memory()
    local kept = {}
    now_and_then(4, function(_, key) kept[#kept + 1] = key .. ("x"):rep(1000) .. #kept end)
end

function plants.log()
    now_and_then(20000, function() ngx.log(ngx.CRIT, "planted") end)
end

-- a worker that does not go when it should
function plants.stays(soak)
    local run = soak.run
    function soak.run()
        ngx.timer.at(0, function() ngx.sleep(100000) end)
        run()
    end
end

-- a worker that has nothing to do and does not rest
function plants.busy(soak)
    local run = soak.run
    local started
    function soak.run()
        if not started then
            started = true
            ngx.timer.at(0, function()
                while not ngx.worker.exiting() do
                    for _ = 1, 10000000 do started = not not started end
                    ngx.sleep(0.001)
                end
            end)
        end
        run()
    end
end

function plants.crash()
    local ffi = require "ffi"
    ffi.cdef "int raise(int);"
    now_and_then(20000, function() ffi.C.raise(11) end)
end

return function(name, soak, servers)
    if not plants[name] then error("no such plant: " .. name) end
    plants[name](soak, servers)
    return name
end
