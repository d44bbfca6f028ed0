-- What scripts/differential calls methods with: keys, values, numbers, options and so
-- on, valid and invalid ones, chosen at random; and their text as Lua.

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

-- No time up to a minute: the clocks of the two servers tick at different moments.
local exptimes = { 0, 0, 100, 3600, -1, "0", "100", "-1", "+100", 2592001, 4294967295, 99999999999, NIL, false }
local function exptime()
    if chance(80) then return pick(exptimes) end
    local got = odd_number()
    local seconds = tonumber(got) or 0
    return seconds > 0 and seconds <= 60 and 100 or got
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
local function pool_options(number)
    if chance(12) then
        local t = { pool = symbol(pool(number or random(2))) }
        for name, wanted in pairs(pick(bad_pools)) do t[name] = wanted end
        return symbol(options(t))
    end
    if chance(15) then return symbol(options {}) end
    -- A name of its own: the reference loses places in a pool when a write fails, so
    -- that it stays there for the sequences that follow.
    local t = { pool = symbol(pool(number or random(2))) }
    if chance(50) then t.pool_size = random(3) end
    if chance(35) then t.backlog = 0 end
    return symbol(options(t))
end
local function connect_args()
    local r = random(100)
    if r <= 62 then return 2, "127.0.0.1", PORT end
    if r <= 78 then return 3, "127.0.0.1", PORT, pool_options() end
    if r <= 82 then return 1, UNIX end
    -- A pool for this address only: shared connections to different ones are kept apart.
    if r <= 84 then return 2, UNIX, chance(50) and pool_options(4) or random(3) end
    if r <= 87 then return random(0, 4), pick(wrong), pick(wrong), pick(wrong), pick(wrong) end
    if r <= 92 then return random(1, 2), pick(bad_hosts), PORT end
    if r <= 96 then return 2, "127.0.0.1", chance(75) and pick(bad_ports) or pick(wrong) end
    if r <= 98 then return 2, "127.0.0.1", 1 end
    return 3, "127.0.0.1", PORT, pick(wrong)
end

local timeouts = { 3000, 4000, "3000", 3000.5, 0, NIL, false, true, "x", -1, -0.5, 2 ^ 31, 2 ^ 31 - 1, 1e300, 1 / 0, 0 / 0, print, "" }
local idle_times = { NIL, 0, 10000, 5000, -1, "5000", "x", true, 1.5, print, 2 ^ 31, 2 ^ 40, 60000, 60000 }
-- More than are ever idle, because the reference's pool of the default name may be an
-- old one; options of connect have small ones.
local pool_sizes = { NIL, 8, 10, 100, 0, -1, "x", "30", 10.5, true }

local stats_args = {
    NIL, NIL, NIL, false, "", "settings", "items", "slabs", "conns", "sizes", "x", "detail", "detail off",
    "reset", "detail on", "settings x", " settings", "settings ", "a  b", "a\r\nflush_all", "noreply",
    "settings noreply", ("s"):rep(1025), ("s"):rep(1024), ("t "):rep(400) .. "t", 5, true, named("{}", {}),
}
-- Those of them that memcached does not know.
_M.unknown_stats = {
    x = true, detail = true, [5] = true, [("s"):rep(1024)] = true, [("t "):rep(400) .. "t"] = true,
}
local levels = { 0, 1, "0", "1", 0, 0, 1 }

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

-- For calls.lua.
_M.chance, _M.pick, _M.named, _M.NIL = chance, pick, named, NIL
_M.symbol, _M.options, _M.pool, _M.cas_of, _M.PORT = symbol, options, pool, cas_of, PORT
_M.odd_number, _M.key, _M.value, _M.exptime, _M.flags, _M.delta = odd_number, key, value, exptime, flags, delta
_M.list, _M.new_options, _M.connect_args = list, new_options, connect_args
_M.timeouts, _M.idle_times, _M.pool_sizes = timeouts, idle_times, pool_sizes
_M.stats_args, _M.levels = stats_args, levels

return _M
