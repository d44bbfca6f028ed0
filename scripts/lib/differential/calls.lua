-- Random sequences of calls for scripts/differential, valid and invalid ones. A
-- sequence is made as a whole before it is run, and depends on nothing but its seed.

local values = require "differential.values"

local random = math.random
local chance, pick, named, NIL = values.chance, values.pick, values.named, values.NIL
local symbol, options, pool, cas_of, PORT = values.symbol, values.options, values.pool, values.cas_of, values.PORT
local odd_number, key, value, exptime = values.odd_number, values.key, values.value, values.exptime
local flags, delta, list = values.flags, values.delta, values.list
local timeouts, idle_times, pool_sizes = values.timeouts, values.idle_times, values.pool_sizes

local _M = {}

-- What each method is called with: the number of arguments and they.
local methods = {
    new = function() return 1, values.new_options() end,
    connect = values.connect_args,
    set_timeout = function() return 1, pick(timeouts) end,
    set_timeouts = function() return 3, pick(timeouts), pick(timeouts), pick(timeouts) end,
    set_keepalive = function()
        if chance(60) then return 0 end
        return random(1, 3), pick(idle_times), pick(pool_sizes), nil
    end,
    get_reused_times = function() return 0 end,
    close = function() return 0 end,
    get = function()
        if chance(25) then return 1, list() end
        return 1, key()
    end,
    delete = function() return 1, key() end,
    incr = function()
        local by = delta()
        if type(by) == "string" and (tonumber(by) or 0) >= 2 ^ 63 and #by < 20 + (by < "18446744073709551616" and 1 or 0) then by = "1" end
        return 2, key(), by
    end,
    decr = function() return 2, key(), delta() end,
    touch = function() return 2, key(), exptime() end,
    flush_all = function()
        local time = chance(70) and pick { NIL, 0, "0", -1, "", false } or exptime()
        -- With a later time memcached forgets about an earlier flush_all.
        if (tonumber(time) or 0) > 0 then time = 0 end
        return 1, time
    end,
    version = function() return 0 end,
    quit = function() return 0 end,
    stats = function() return 1, pick(values.stats_args) end,
    verbosity = function() return 1, chance(65) and pick(values.levels) or odd_number() end,
    init_pipeline = function() return 1, pick { NIL, NIL, NIL, 0, 3.5, 10, false, "x", true, print } end,
    commit_pipeline = function() return 0 end,
    cancel_pipeline = function() return 0 end,
    set = function() return pick { 2, 3, 4, 4 }, key(), value(), exptime(), flags() end,
    cas = function()
        local k = key()
        local unique = symbol(cas_of(type(k) == "string" and k or "k1"))
        if chance(25) then unique = odd_number() end
        local v = value()
        return pick { 3, 4, 5 }, k, v, unique, exptime(), flags()
    end,
    ["sock:settimeouts"] = function() return 3, pick(timeouts), pick(timeouts), pick(timeouts) end,
    ["sock:settimeout"] = function() return 1, pick(timeouts) end,
    ["sock:getreusedtimes"] = function() return 0 end,
    ["sock:close"] = function() return 0 end,
    ["sock:setkeepalive"] = function() return random(0, 2), pick(idle_times), pick(pool_sizes) end,
    sslhandshake = function() return 0 end,
}
methods.gets = methods.get
for _, name in ipairs { "add", "replace", "append", "prepend" } do methods[name] = methods.set end

-- How often each is called.
local weights = {
    set = 20, get = 18, gets = 8, cas = 8, add = 6, replace = 5, append = 6, prepend = 5, delete = 6,
    incr = 6, decr = 5, touch = 5, flush_all = 2, stats = 3, version = 2, verbosity = 2, quit = 1,
    connect = 6, close = 2, set_keepalive = 4, get_reused_times = 4, set_timeout = 2, set_timeouts = 2,
    init_pipeline = 7, commit_pipeline = 7, cancel_pipeline = 1, new = 1, ["sock:settimeouts"] = 1,
    ["sock:settimeout"] = 1, ["sock:getreusedtimes"] = 1, ["sock:close"] = 1, ["sock:setkeepalive"] = 1,
}
local ballot = {}
for name, weight in pairs(weights) do ballot[#ballot + 1] = { name, weight } end
table.sort(ballot, function(x, y) return x[1] < y[1] end)
do
    local flat = {}
    for _, entry in ipairs(ballot) do
        for _ = 1, entry[2] do flat[#flat + 1] = entry[1] end
    end
    ballot = flat
end

local function call(target, method)
    local function packed(n, ...)
        return { target = target, method = method, n = n, ... }
    end
    return packed(methods[method]())
end

-- A command by hand over memc.sock; each has a reply of one line. The first ones may
-- be left without an answer.
local by_hand = {
    "version\r\n", "mn\r\n", { "bo", { "gus" }, "\r\n" }, "get none\r\n",
    "set k1 0 0 1\r\nx\r\n", { "delete ", { "k", 1 }, "\r\n" }, "verbosity 0\r\n",
}
local patterns = { NIL, "*l", 3, "2", "*x", true }
local sends = { true, NIL, named("{ true }", { true }), named("{ a = 1 }", { a = 1 }), print, "", named("{}", {}), 5 }

local function raw(target, calls)
    local is_read = chance(70)
    calls[#calls + 1] = { target = target, method = "sock:send", n = 1, by_hand[random(is_read and #by_hand or 3)] }
    if is_read then
        calls[#calls + 1] = { target = target, method = "sock:receive", n = 0 }
        return
    end
    -- what was not read would answer the next command
    if chance(40) then
        calls[#calls + 1] = { target = target, method = "sock:receive", n = 1, pick(patterns) }
    end
    calls[#calls + 1] = { target = target, method = "close", n = 0 }
end

local targets = { "a", "a", "a", "a", "a", "a", "a", "b" }

-- A sequence: a list of calls { target, method, n, arguments... }. A target is
-- one of the objects a and b, `module`, or `wrong` (no object at all).
function _M.sequence(seed)
    math.randomseed(seed)
    for _ = 1, 3 do random() end
    local calls = {}
    local two = chance(35)
    local crowded = chance(8)   -- in a pool with room for one
    for _, target in ipairs { "a", two and "b" or nil } do
        calls[#calls + 1] = call(target, "new")
        if chance(70) then calls[#calls][1], calls[#calls].n = nil, 0 end
        if chance(50) then calls[#calls + 1] = { target = target, method = "set_timeout", n = 1, 3000 } end
        if crowded then
            calls[#calls + 1] = { target = target, method = "connect", n = 3, "127.0.0.1", PORT,
                symbol(options { pool = symbol(pool(1)), pool_size = 1, backlog = 0 }) }
        elseif chance(93) then
            calls[#calls + 1] = chance(80) and { target = target, method = "connect", n = 2, "127.0.0.1", PORT }
                or call(target, "connect")
        end
    end
    for _ = 1, random(2, 22) do
        local target = two and targets[random(#targets)] or "a"
        local r = random(1000)
        if r <= 8 then
            target = "module"
        elseif r <= 11 then
            target = "wrong"
        elseif r <= 13 then
            if not values.shared then
                -- one that is in no pool
                calls[#calls + 1] = { target = target, method = "connect", n = 3, "127.0.0.1", PORT,
                    symbol(options { pool = symbol(pool(3)) }) }
                calls[#calls + 1] = { target = target, method = "sslhandshake", n = 0 }
            end
        elseif r <= 30 then
            raw(target, calls)
        elseif r <= 33 then
            calls[#calls + 1] = { target = target, method = "sock:send", n = 1, pick(sends) }
            calls[#calls + 1] = { target = target, method = "close", n = 0 }
        elseif r <= 60 then
            -- a pipeline as it should be
            calls[#calls + 1] = { target = target, method = "init_pipeline", n = 0 }
            for _ = 1, random(6) do calls[#calls + 1] = call(target, pick { "set", "get", "add", "incr", "delete", "touch", "append" }) end
            calls[#calls + 1] = { target = target, method = "commit_pipeline", n = 0 }
        elseif r <= 80 then
            -- the way of most users
            calls[#calls + 1] = { target = target, method = "set_keepalive", n = 0 }
            calls[#calls + 1] = { target = target, method = "connect", n = 2, "127.0.0.1", PORT }
        end
        local made = call(target, ballot[random(#ballot)])
        if not (target == "module" and made.method:find("^sock:")) then calls[#calls + 1] = made end
    end
    return calls
end

function _M.show_call(made)
    local args = {}
    for i = 1, made.n do args[i] = values.show(made[i]) end
    return ("%s:%s(%s)"):format(made.target, made.method, table.concat(args, ", "))
end

return _M
