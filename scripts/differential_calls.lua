-- Random sequences of calls for scripts/differential, valid and invalid ones,
-- and their text as Lua. A sequence is made as a whole before it is run, and
-- depends on nothing but its seed.

local ffi = require "ffi"

local random = math.random

local _M = {}

-- Arguments that each side has its own value for: { symbol, ... }.
local PORT, UNIX = { "port" }, { "unix" }
local function pool(n) return { "pool", n } end
local function options(t) return { "options", t } end
local function cas_of(key) return { "cas", key } end

local symbols = setmetatable({ [PORT] = true, [UNIX] = true }, { __mode = "k" })
local function symbol(s) symbols[s] = true return s end

-- The value of an argument for a side; world has the ports and so on.
function _M.resolve(arg, world)
    if type(arg) ~= "table" or not symbols[arg] then return arg end
    local kind = arg[1]
    if kind == "port" or kind == "unix" then return world[kind] end
    if kind == "pool" then return "pool" .. arg[2] .. "." .. world.run end
    if kind == "cas" then return world.uniques[arg[2]] or "1" end
    local t = {}
    for name, value in pairs(arg[2]) do t[name] = _M.resolve(value, world) end
    return t
end

-- Choices.

local function chance(percent) return random(100) <= percent end

local NIL = {}

-- One of a list whose entries may be NIL or functions in a table (to be called).
local function pick(list)
    local got = list[random(#list)]
    if type(got) == "table" and got.make then got = got.make() end
    if got == NIL then return nil end
    return got
end

local names = setmetatable({}, { __mode = "k" })
local function named(name, value) names[value] = name return value end

-- What is seldom the right type.
local callable = named("callable", setmetatable({}, { __call = function(_, key) return key end }))
local wrong = {
    NIL, true, false, named("{}", {}), named('{ "1" }', { "1" }), named('{ 1, { "x" } }', { 1, { "x" } }),
    named("{ a = 1 }", { a = 1 }), named("{ true }", { true }), named("print", print),
    named("ngx.null", ngx.null), named("5LL", ffi.new("int64_t", 5)), named("thread", coroutine.create(print)),
}
local numbers = {
    0, 1, 5, -1, 1.5, 100.0, 1e3, 1e15, 2 ^ 31, 2 ^ 32, 2 ^ 53, 2 ^ 63, 2 ^ 64, 1e20, 1e300,
    1 / 0, -1 / 0, -1e20, -0.5, 0.1,
}
local integers = {
    "0", "1", "7", "007", "+5", "-0", "-1", "-5", "4294967295", "4294967296", "2147483648",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "1.5", "1e3", "0x10", "x", "5x", "", " ", "1 2", " 5", "5 ", "5\n", "noreply", "0 noreply",
    "5\r\nflush_all", "\t", "1\0", "-", "+", "--1", ("0"):rep(40), ("9"):rep(300), ("0"):rep(300),
}

local function odd_number()
    if chance(45) then return pick(integers) end
    if chance(50) then return pick(numbers) end
    return pick(wrong)
end

local plain_keys = { "k1", "k2", "k3", "k4" }
local odd_keys = {
    "a b", "", "", "", "noreply", "k\r\nflush_all", "k\nversion", "0", 5, 1.5, -1, 1e20, 2 ^ 53, "5",
    "\0", "\1\2", "\127", "\128\255", "caf\195\169", "%41", "a+b", "a/b?c=d&e", "-._~!*'()", "K1",
    ("x"):rep(250), ("x"):rep(251), (" "):rep(83), (" "):rep(84), ("y"):rep(300), ("z"):rep(3000),
    ("w"):rep(100000), "k1 k2", " k1", "k1 ", "\t", "k1\r", "0 0 1", -0.0, 0 / 0, 1 / 0,
}
local function key()
    if chance(72) then return pick(plain_keys) end
    if chance(80) then return pick(odd_keys) end
    return pick(wrong)
end

local big = {}
local function big_value(size)
    if not big[size] then
        big[size] = named(("(%q):rep(%d)"):format("v", size), { ("v"):rep(size) })
    end
    return big[size][1]
end
local binary = {}
for byte = 0, 255 do binary[byte + 1] = string.char(byte) end
binary = table.concat(binary)
-- None is white space only, or of 2^63 and more: memcached's incr looks at what is in
-- its memory behind such a one.
local good_values = {
    "v", "value", "", "0", "10", "99", "4294967295", "-5", "5 ", " 5",
    "1.5", "abc def", "\r\n.", "END\r\n", "STORED\r\n", "flush_all\r\n", "version", "set k1 0 0 1\r\nx",
    "x\r\nset k2 0 0 1\r\ny", "quit", binary, "\0", ("x"):rep(100), ("line\r\n"):rep(50),
    "VALUE k1 0 1\r\nx\r\nEND\r\n", "\255\254", "noreply", 1, 10, 0, -5, 1.5, 1e15, 1e20, 2 ^ 53, 1 / 3,
    named("{}", {}), named('{ "a", "b" }', { "a", "b" }), named('{ "1", { 2, { "3" } } }', { "1", { 2, { "3" } } }),
    named("{ 1.5, 1e20 }", { 1.5, 1e20 }), named("{ a = 1 }", { a = 1 }), named('{ {}, "" }', { {}, "" }),
}
local sizes = { 2047, 2048, 4095, 4096, 8191, 8192, 8193, 16384, 65536, 100000 }
local huge = { 1000000, 1048576, 1048577, 2000000 }
local odd_values = {
    -0.0, 0 / 0, 1 / 0, named("{ true }", { true }), named("{ 1, print }", { 1, print }),
    named("{ { false } }", { { false } }), named("{ -0 }", { -0.0 }), named("{ 0 / 0 }", { 0 / 0 }),
}
local function value()
    local r = random(100)
    if r <= 84 then return pick(good_values) end
    if r <= 91 then return big_value(sizes[random(#sizes)]) end
    if r <= 92 then return big_value(huge[random(#huge)]) end
    if r <= 96 then return pick(odd_values) end
    return pick(wrong)
end

-- No time from 2 to 60 s: the clocks of the two servers tick at different moments.
local exptimes = { 0, 0, 100, 3600, -1, "0", "100", "-1", "+100", 2592001, 4294967295, 99999999999, NIL, false }
local function exptime()
    if chance(80) then return pick(exptimes) end
    local got = odd_number()
    if got == 5 or got == "5" or got == "+5" or got == "7" or got == "007" then return 100 end
    return got
end
local flag_values = { 0, 1, 5, 32, 65535, 4294967295, "0", "17", "4294967295", NIL, false }
local function flags()
    if chance(80) then return pick(flag_values) end
    return odd_number()
end
local deltas = { 1, 2, 10, 0, "1", "5", 100, "18446744073709551615", 4294967296 }
local function delta()
    if chance(75) then return pick(deltas) end
    return odd_number()
end

local function list()
    local keys = {}
    for i = 1, pick { 0, 1, 1, 2, 2, 3, 5, 8 } do
        keys[i] = chance(85) and pick(plain_keys) or key()
    end
    if chance(5) then keys.extra = "k1" end
    return keys
end

-- Key transforms: named functions.
local escapes = {
    same = function(k) return k end,
    prefix = function(k) return "p." .. tostring(k) end,
    hex = function(k)
        return (tostring(k):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
    end,
    number = function() return 42 end,
    -- what follows is at fault
    two = function(k) return string.gsub(tostring(k), " ", "_") end,
    none = function() end,
    null = function() return nil end,
    truth = function() return true end,
    list = function(k) return { "x", k } end,
    raises = function() error("cannot escape") end,
    raises_table = function() error({ "cannot" }) end,
}
local unescapes = {
    same = escapes.same,
    prefix = function(k) return (k:gsub("^p%.", "")) end,
    hex = function(k)
        return (k:gsub("%x%x", function(x) return string.char(tonumber(x, 16)) end))
    end,
    raises = function() error("cannot unescape") end,
    null = function() return nil end,
    number = function() return 1 end,
}
for name, f in pairs(escapes) do names[f] = "escape." .. name end
for name, f in pairs(unescapes) do if not names[f] then names[f] = "unescape." .. name end end
_M.escapes, _M.unescapes = escapes, unescapes

local transforms = {
    { "same", "same" }, { "prefix", "prefix" }, { "hex", "hex" }, { "number", "same" },
    { "same", "same" }, { "prefix", "prefix" }, { "hex", "hex" }, { "same", "number" },
    { "two", "same" }, { "none", "same" }, { "null", "same" }, { "truth", "same" }, { "list", "same" },
    { "raises", "same" }, { "raises_table", "same" }, { "same", "raises" }, { "same", "null" }, { "hex", "raises" },
}
local bad_options = {
    "x", 5, true, false, NIL, print, named("{}", {}), named("{ key_transform = {} }", { key_transform = {} }),
    named("{ key_transform = false }", { key_transform = false }),
    named("{ key_transform = 5 }", { key_transform = 5 }),
    named('{ key_transform = "x" }', { key_transform = "x" }),
    named("{ key_transform = true }", { key_transform = true }),
    named('{ key_transform = { "a", "b" } }', { key_transform = { "a", "b" } }),
    named("{ key_transform = { print } }", { key_transform = { print } }),
    named("{ key_transform = { false, print } }", { key_transform = { false, print } }),
    named("{ key_transform = { callable, callable } }", { key_transform = { callable, callable } }),
}
local function new_options()
    if chance(72) then return nil end
    if chance(30) then return pick(bad_options) end
    local pair = transforms[random(#transforms)]
    return { key_transform = { escapes[pair[1]], unescapes[pair[2]] } }
end

local bad_hosts = {
    "", " ", "256.256.256.256", "localhost", "no.such.host", "unix:", "unix:/no/such/socket", "unix:/",
    "unix:" .. ("x"):rep(200), "[::1", "a:0", "a:x", "/x", "http://a", "127.0.0.1 ", "::1", "a/b", "a?x",
    "127.0.0.1:1", "a\r\nb", 5, 127.5, ("h"):rep(300), ".", "..", "UNIX:/no/such",
}
local bad_ports = {
    0, 1, "1", -1, 65536, 70000, "http", "", " ", 1.5, "1x", 1e10, 1 / 0, "99999", "-1", 2 ^ 53,
}
local bad_pools = {
    { pool_size = 0 }, { pool_size = -1 }, { pool_size = "x" }, { pool_size = 1.5 }, { backlog = -1 },
    { backlog = "x" }, { pool = {} }, { pool = true }, { pool = 5 }, { pool = "" }, { pool_size = {} },
    { pool = print }, { pool_size = "2" }, { backlog = true }, { backlog = {} }, { pool = false },
    { pool_size = false }, { pool_size = 2 ^ 16 }, { backlog = 2 ^ 40 }, { unknown = 1 },
}
local function pool_options()
    if chance(12) then return symbol(options(pick(bad_pools))) end
    local t = {}
    if chance(80) then t.pool = symbol(pool(random(2))) end
    if chance(50) then t.pool_size = random(3) end
    if chance(35) then t.backlog = 0 end
    return symbol(options(t))
end
local function connect_args()
    local r = random(100)
    if r <= 62 then return 2, "127.0.0.1", PORT end
    if r <= 78 then return 3, "127.0.0.1", PORT, pool_options() end
    if r <= 82 then return 1, UNIX end
    if r <= 84 then return 2, UNIX, chance(50) and pool_options() or random(3) end
    if r <= 87 then return random(0, 4), pick(wrong), pick(wrong), pick(wrong), pick(wrong) end
    if r <= 92 then return random(1, 2), pick(bad_hosts), PORT end
    if r <= 96 then return 2, "127.0.0.1", chance(75) and pick(bad_ports) or pick(wrong) end
    if r <= 98 then return 2, "127.0.0.1", 1 end
    return 3, "127.0.0.1", PORT, pick(wrong)
end

local timeouts = { 3000, 4000, "3000", 3000.5, 0, NIL, false, true, "x", -1, -0.5, 2 ^ 31, 2 ^ 31 - 1, 1e300, 1 / 0, 0 / 0, print, "" }
local idle_times = { NIL, 0, 10000, 5000, -1, "5000", "x", true, 1.5, print, 2 ^ 31, 2 ^ 40, 60000, 60000 }
local pool_sizes = { NIL, 1, 2, 10, 100, 0, -1, "x", "3", 1.5, true }

local stats_args = {
    NIL, NIL, NIL, false, "", "settings", "items", "slabs", "conns", "sizes", "x", "detail", "detail off",
    "reset", "detail on", "settings x", " settings", "settings ", "a  b", "a\r\nflush_all", "noreply",
    "settings noreply", ("s"):rep(1025), ("s"):rep(1024), ("t "):rep(400) .. "t", 5, true, named("{}", {}),
}
local levels = { 0, 1, "0", "1", 0, 0, 1 }

-- What each method is called with: the number of arguments and they.
local methods = {
    new = function() return 1, new_options() end,
    connect = connect_args,
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
    stats = function() return 1, pick(stats_args) end,
    verbosity = function() return 1, chance(65) and pick(levels) or odd_number() end,
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

-- A command by hand over memc.sock, and the lines of its reply.
local by_hand = {
    { "version\r\n", 1 }, { "mn\r\n", 1 }, { "get none\r\n", 1 }, { { "get ", "none", "\r\n" }, 1 },
    { "set k1 0 0 1\r\nx\r\n", 1 }, { { "delete ", { "k", 1 }, "\r\n" }, 1 }, { "verbosity 0\r\n", 1 }, { "bogus\r\n", 1 },
}
local patterns = { NIL, "*l", 3, "2", "*x", true }
local sends = { true, NIL, named("{ true }", { true }), named("{ a = 1 }", { a = 1 }), print, "", named("{}", {}), 5 }

local function raw(target, calls)
    local sent = pick(by_hand)
    calls[#calls + 1] = { target = target, method = "sock:send", n = 1, sent[1] }
    local how = random(10)
    if how <= 7 then
        calls[#calls + 1] = { target = target, method = "sock:receive", n = 0 }
        return
    end
    -- what was not read would answer the next command
    if how == 8 then
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
            if not _M.shared then
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

-- The text of a value, shortened.
local show
function show(arg)
    local kind = type(arg)
    if kind == "string" then
        if #arg > 160 then return ("<%d bytes: %s...>"):format(#arg, show(arg:sub(1, 60))) end
        return (("%q"):format(arg):gsub("\\\n", "\\n"):gsub("[%z\1-\31\127-\255]", function(c) return ("\\%03d"):format(c:byte()) end))
    end
    if kind == "number" then
        return arg == 0 and 1 / arg < 0 and "-0" or (("%.17g"):format(arg):gsub("^(%-?)inf$", "%11/0"))
    end
    if arg == nil then return "nil" end
    if names[arg] then return names[arg] end
    if kind == "table" then
        if symbols[arg] then
            return arg[1] == "options" and show(arg[2]) or arg[1] .. (arg[2] and "(" .. show(arg[2]) .. ")" or "")
        end
        local parts = {}
        for i = 1, math.min(table.maxn(arg), 30) do parts[i] = show(arg[i]) end
        for k, v in pairs(arg) do
            if type(k) ~= "number" then parts[#parts + 1] = tostring(k) .. " = " .. show(v) end
        end
        return "{ " .. table.concat(parts, ", ") .. " }"
    end
    return tostring(arg)
end
_M.show = show

function _M.show_call(made)
    local args = {}
    for i = 1, made.n do args[i] = show(made[i]) end
    return ("%s:%s(%s)"):format(made.target, made.method, table.concat(args, ", "))
end

return _M
