-- The commands with their replies, and the faults that are made of them.

local _M = {}

-- A command: its name, what calls it, the request as it has to be on the wire,
-- its kind of reply (see faultoracle.lua), the intact reply, and what that has
-- to give, as faultkit prints it. `own`: it never goes over a shared connection;
-- `touches`: it looks like a get, and changes something.
local commands = {}

local function add(kind, name, request, reply, want, call, more)
    local cmd = more or {}
    cmd.kind, cmd.name, cmd.request, cmd.reply, cmd.want, cmd.call =
        kind, name, request, reply, want, call
    commands[#commands + 1] = cmd
    return cmd
end

local OOM = "SERVER_ERROR out of memory\r\n"
local TOO_LONG = "CLIENT_ERROR line too long\r\n"

-- retrieval

local K = { keys = { k = "k" }, count = 1 }
local AB = { keys = { ["a"] = "a", ["b%20c"] = "b c", ["d"] = "d" }, count = 3, list = true }
local LIST = { "a", "b c", "d" }

local function retrieval(kind, name, request, reply, want, key, more)
    local cmd = { keys = more.keys, count = more.count, list = more.list }
    return add(kind, name, request, reply, want,
        function(m) return m[kind](m, key) end, cmd)
end

local tricky = "END\r\nVALUE k 0 1\r\n"
local large = ("0123456789abcdef"):rep(640)

retrieval("get", "get", "get k\r\n", "VALUE k 7 5\r\nhello\r\nEND\r\n", '"hello", "7"', "k", K)
retrieval("get", "get of the empty value", "get k\r\n", "VALUE k 0 0\r\n\r\nEND\r\n", '"", "0"', "k", K)
retrieval("get", "get of what looks like a reply", "get k\r\n",
    "VALUE k 1 " .. #tricky .. "\r\n" .. tricky .. "\r\nEND\r\n",
    '"END\\r\\nVALUE k 0 1\\r\\n", "1"', "k", K)
retrieval("get", "get of an escaped key", "get a%20b\r\n", "VALUE a%20b 0 2\r\nxy\r\nEND\r\n",
    '"xy", "0"', "a b", { keys = { ["a%20b"] = "a b" }, count = 1 })
retrieval("get", "get, miss", "get k\r\n", "END\r\n", "nil, nil, nil", "k", K)
retrieval("get", "get, error", "get k\r\n", OOM, 'nil, nil, "SERVER_ERROR out of memory"', "k", K)
local cmd = retrieval("get", "get of a large value", "get k\r\n",
    "VALUE k 0 " .. #large .. "\r\n" .. large .. "\r\nEND\r\n",
    '<10240 bytes ' .. ngx.crc32_short(large) .. '>, "0"', "k", K)
cmd.sparse = true
retrieval("get", "get of a list", "get a b%20c d\r\n",
    "VALUE a 1 3\r\none\r\nVALUE b%20c 0 3\r\ntwo\r\nVALUE d 2 0\r\n\r\nEND\r\n",
    '{a={"one", "1"}, ["b c"]={"two", "0"}, d={"", "2"}}', LIST, AB)
retrieval("get", "get of a list, one hit", "get a b%20c d\r\n",
    "VALUE d 0 2\r\nxy\r\nEND\r\n", '{d={"xy", "0"}}', LIST, AB)
retrieval("get", "get of a list, miss", "get a b%20c d\r\n", "END\r\n", "{}", LIST, AB)
retrieval("get", "get of a list, error", "get a b%20c d\r\n", "ERROR\r\n", 'nil, "ERROR"', LIST, AB)
-- as a proxy does for keys whose server is away
local AWAY = "SERVER_ERROR backend failure\r\n"
retrieval("get", "get of a list, error lines", "get a b%20c d\r\n", AWAY .. AWAY .. "END\r\n",
    'nil, "SERVER_ERROR backend failure"', LIST, AB)
retrieval("gets", "gets of a list, an error line among values", "gets a b%20c d\r\n",
    "VALUE a 1 1 12\r\nx\r\n" .. AWAY .. "END\r\n", 'nil, "SERVER_ERROR backend failure"', LIST, AB)
retrieval("gets", "gets", "gets k\r\n", "VALUE k 7 3 4711\r\nabc\r\nEND\r\n",
    '"abc", "7", "4711"', "k", K)
retrieval("gets", "gets, miss", "gets k\r\n", "END\r\n", "nil, nil, nil, nil", "k", K)
retrieval("gets", "gets, error", "gets k\r\n", TOO_LONG,
    'nil, nil, nil, "CLIENT_ERROR line too long"', "k", K)
retrieval("gets", "gets of a list", "gets a b%20c d\r\n",
    "VALUE a 1 1 12\r\nx\r\nVALUE b%20c 0 1 3\r\ny\r\nEND\r\n",
    '{a={"x", "1", "12"}, ["b c"]={"y", "0", "3"}}', LIST, AB)
retrieval("gets", "gets of a list, miss", "gets a b%20c d\r\n", "END\r\n", "{}", LIST, AB)

local function gat(kind, name, request, reply, want, key, more)
    local cmd = { keys = more.keys, count = more.count, list = more.list, touches = true }
    return add(kind:gsub("gat", "get"), name, request, reply, want,
        function(m) return m[kind](m, key, 60) end, cmd)
end

gat("gat", "gat", "gat 60 k\r\n", "VALUE k 7 5\r\nhello\r\nEND\r\n", '"hello", "7"', "k", K)
gat("gat", "gat, miss", "gat 60 k\r\n", "END\r\n", "nil, nil, nil", "k", K)
gat("gats", "gats", "gats 60 k\r\n", "VALUE k 7 3 4711\r\nabc\r\nEND\r\n", '"abc", "7", "4711"', "k", K)
gat("gat", "gat, error", "gat 60 k\r\n", OOM, 'nil, nil, "SERVER_ERROR out of memory"', "k", K)
gat("gats", "gats, miss", "gats 60 k\r\n", "END\r\n", "nil, nil, nil, nil", "k", K)
gat("gats", "gats, error", "gats 60 k\r\n", "ERROR\r\n", 'nil, nil, nil, "ERROR"', "k", K)
gat("gat", "gat of a list", "gat 60 a b%20c d\r\n",
    "VALUE a 1 3\r\none\r\nVALUE d 2 0\r\n\r\nEND\r\n", '{a={"one", "1"}, d={"", "2"}}', LIST, AB)
gat("gats", "gats of a list", "gats 60 a b%20c d\r\n",
    "VALUE b%20c 0 1 3\r\ny\r\nEND\r\n", '{["b c"]={"y", "0", "3"}}', LIST, AB)
gat("gat", "gat of a list, error lines", "gat 60 a b%20c d\r\n", AWAY .. "END\r\n",
    'nil, "SERVER_ERROR backend failure"', LIST, AB)

-- storage

for _, verb in ipairs{ "set", "add", "replace", "append", "prepend" } do
    local request = verb .. " k 5 60 3\r\nv\r\n\r\n"
    local function call(m) return m[verb](m, "k", "v\r\n", 60, 5) end
    add("store", verb, request, "STORED\r\n", "1", call)
    add("store", verb .. ", refused", request, "NOT_STORED\r\n", 'nil, "NOT_STORED"', call)
    if verb == "set" then
        add("store", "set, error", request, OOM, 'nil, "SERVER_ERROR out of memory"', call)
        -- the value behind it may have been executed
        add("store", "set, bad line", request, "CLIENT_ERROR bad command line format\r\n",
            'nil, "CLIENT_ERROR bad command line format"', call).lost = true
    end
end
local function cas(m) return m:cas("k", "v", 4711, 60, 5) end
add("cas", "cas", "cas k 5 60 1 4711\r\nv\r\n", "STORED\r\n", "1", cas)
add("cas", "cas, changed", "cas k 5 60 1 4711\r\nv\r\n", "EXISTS\r\n", 'nil, "EXISTS"', cas)
add("cas", "cas, gone", "cas k 5 60 1 4711\r\nv\r\n", "NOT_FOUND\r\n", 'nil, "NOT_FOUND"', cas)

-- others

local function delete(m) return m:delete("k") end
add("delete", "delete", "delete k\r\n", "DELETED\r\n", "1", delete)
add("delete", "delete, miss", "delete k\r\n", "NOT_FOUND\r\n", 'nil, "NOT_FOUND"', delete)
add("delete", "delete, error", "delete k\r\n", OOM, 'nil, "SERVER_ERROR out of memory"', delete)
local function incr(m) return m:incr("k", 5) end
local function decr(m) return m:decr("k", 5) end
add("arith", "incr", "incr k 5\r\n", "1234\r\n", '"1234"', incr)
add("arith", "incr, miss", "incr k 5\r\n", "NOT_FOUND\r\n", 'nil, "NOT_FOUND"', incr)
add("arith", "incr, error", "incr k 5\r\n", "CLIENT_ERROR cannot increment\r\n",
    'nil, "CLIENT_ERROR cannot increment"', incr)
add("arith", "decr", "decr k 5\r\n", "0\r\n", '"0"', decr)
add("arith", "decr, miss", "decr k 5\r\n", "NOT_FOUND\r\n", 'nil, "NOT_FOUND"', decr)
local function touch(m) return m:touch("k", 60) end
add("touch", "touch", "touch k 60\r\n", "TOUCHED\r\n", "1", touch)
add("touch", "touch, miss", "touch k 60\r\n", "NOT_FOUND\r\n", 'nil, "NOT_FOUND"', touch)
local function flush(m) return m:flush_all(60) end
add("ok", "flush_all", "flush_all 60\r\n", "OK\r\n", "1", flush).own = true
add("ok", "flush_all, error", "flush_all 60\r\n", "ERROR\r\n", 'nil, "ERROR"', flush).own = true
local function version(m) return m:version() end
add("version", "version", "version\r\n", "VERSION 1.6.18\r\n", '"1.6.18"', version)
add("version", "version, error", "version\r\n", "ERROR\r\n", 'nil, "ERROR"', version)
add("ok", "verbosity", "verbosity 1\r\n", "OK\r\n", "1", function(m) return m:verbosity(1) end).own = true
local function stats(m) return m:stats() end
add("stats", "stats", "stats\r\n", "STAT pid 17\r\nSTAT version 1.6\r\nEND\r\n",
    '{"STAT pid 17", "STAT version 1.6"}, nil', stats).own = true
add("stats", "stats, error", "stats\r\n", OOM, 'nil, "SERVER_ERROR out of memory"', stats).own = true
add("stats", "stats items", "stats items\r\n", "STAT items:1:number 1\r\nEND\r\n",
    '{"STAT items:1:number 1"}, nil', function(m) return m:stats("items") end, { special = true, own = true })
add("stats", "stats reset", "stats reset\r\n", "RESET\r\n", '{"RESET"}, nil',
    function(m) return m:stats("reset") end, { special = true, own = true })

add("pipeline", "a pipeline",
    "set k 0 0 1\r\nv\r\nget k\r\ndelete k\r\nget k\r\nincr k 5\r\n",
    "STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\nNOT_FOUND\r\nEND\r\n17\r\n",
    '{{1}, {"v", "0"}, {nil, "NOT_FOUND"}, {}, {"17"}}, nil',
    function(m)
        assert(m:init_pipeline() == nil)
        m:set("k", "v")
        m:get("k")
        m:delete("k")
        m:get("k")
        m:incr("k", 5)
        return m:commit_pipeline()
    end,
    { parts = {
        { kind = "store" }, { kind = "get", keys = K.keys, count = 1 }, { kind = "delete" },
        { kind = "get", keys = K.keys, count = 1 }, { kind = "arith" },
    } })

local meta = require "faultmeta"
meta.add(add, K)

_M.commands = commands

-- Where to cut a reply: everywhere, but within the bulk of a large value.
function _M.offsets(cmd)
    local n = #cmd.reply
    return coroutine.wrap(function()
        for at = 0, n do
            if not cmd.sparse or at < 24 or at > n - 12
                or at > 8180 and at < 8220 or at % 1009 == 0 then
                coroutine.yield(at)
            end
        end
    end)
end

-- Faults. Each is given a reply and an offset (0: before the first byte) and
-- returns what is sent, a list of steps of the server, or nil and several such lists.

local function send(s) return s ~= "" and { "send", s } or nil end

local function steps(...)
    local list = {}
    for i = 1, select("#", ...) do list[#list + 1] = (select(i, ...)) end
    return list
end

local faults = {}
_M.faults = faults

function faults.close(s, at) return steps(send(s:sub(1, at)), { "fin" }) end
-- what was sent before a reset may be lost by it, unless it was received
function faults.reset(s, at) return steps(send(s:sub(1, at)), at > 0 and { "pause", 4 } or nil, { "rst" }) end
function faults.restart(s, at) return steps(send(s:sub(1, at)), { "down" }) end

function faults.stall(s, at)
    if at == #s then return nil end
    return steps(send(s:sub(1, at)), { "hold" })
end

function faults.split(s, at)
    if at == 0 or at == #s then return nil end
    return steps(send(s:sub(1, at)), { "pause", 2 }, send(s:sub(at + 1)))
end

-- Bytes that mean something to a parser, and some that do not.
local OTHER = { "9", "0", "-", "E", "Z", " ", "\r", "\n", "\0", "\255" }

-- How many of them in one place; less than all take turns.
_M.others = #OTHER

local function others(at)
    local list = {}
    for i = 1, _M.others do list[i] = OTHER[(at * _M.others + i) % #OTHER + 1] end
    return list
end

-- One byte is another one, or there is one more.
function faults.change(s, at)
    if at == #s then return nil end
    local all = {}
    local byte = s:sub(at + 1, at + 1)
    for _, other in ipairs(others(at)) do
        -- a digit that stands for another one may be that one
        if byte ~= other and not (byte:find("[\128-\159]") and other:find("%d")) then
            all[#all + 1] = steps(send(s:sub(1, at) .. other .. s:sub(at + 2)))
        end
    end
    return nil, all
end

function faults.insert(s, at)
    local all = {}
    for i, other in ipairs(others(at)) do
        all[i] = steps(send(s:sub(1, at) .. other .. s:sub(at + 1)))
    end
    return nil, all
end

function faults.omit(s, at)
    if at == #s then return nil end
    return steps(send(s:sub(1, at) .. s:sub(at + 2)))
end

function faults.junk(s, at)
    return steps(send(s:sub(1, at) .. "\0\255 junk\r\n"))
end

function faults.endless(s, at)
    return steps(send(s:sub(1, at) .. ("9"):rep(30000)))
end

-- What comes behind a whole reply, each of them once.
_M.unsolicited = {
    "\r\n", "E", "END\r\n", "STORED\r\n", "ERROR\r\n", "\0", ("x"):rep(20000),
    "VALUE k 0 4\r\nevil\r\nEND\r\n", "VALUE k 0 4\r\nevil", "HD O00000000\r\n",
}

-- Every case of a fault: cases are { cmd, steps, label }.
function _M.at_every_offset(name)
    local cases = {}
    for _, cmd in ipairs(commands) do
        for at in _M.offsets(cmd) do
            local one, several = faults[name](cmd.reply, at)
            for i, made in ipairs(several or { one }) do
                local label = cmd.name .. ", " .. name .. " at " .. at .. (several and " by " .. i or "")
                cases[#cases + 1] = { cmd = cmd, steps = made, label = label }
            end
        end
    end
    return cases
end

-- Every reply as it is: `how` is a kind of step.
function _M.intact(how)
    local cases = {}
    for _, cmd in ipairs(commands) do
        if not (cmd.sparse and how == "drip") then
            cases[#cases + 1] = { cmd = cmd, steps = { { how, cmd.reply } }, intact = true,
                                  label = cmd.name .. ", " .. how }
        end
    end
    return cases
end

-- Every reply followed by what nobody asked for.
function _M.with_more()
    local cases = {}
    for _, cmd in ipairs(commands) do
        for i, more in ipairs(_M.unsolicited) do
            cases[#cases + 1] = { cmd = cmd, steps = { { "send", cmd.reply .. more } },
                                  label = cmd.name .. ", unsolicited " .. i }
        end
    end
    return cases
end

-- Every reply, and later, when its connection is idle, what ends that.
function _M.late()
    local cases = {}
    local ends = { { "fin" }, { "rst" } }
    for _, more in ipairs(_M.unsolicited) do ends[#ends + 1] = { "send", more } end
    for _, cmd in ipairs(commands) do
        for i, last in ipairs(ends) do
            cases[#cases + 1] = { cmd = cmd, late = true,
                                  steps = { { "send", cmd.reply }, { "pause", 40 }, last },
                                  label = cmd.name .. ", late " .. i }
        end
    end
    return cases
end

-- Every command answered by every reply.
function _M.crossed()
    local cases, replies, known = {}, {}, {}
    for _, cmd in ipairs(commands) do
        if not known[cmd.reply] then
            known[cmd.reply] = true
            replies[#replies + 1] = cmd
        end
    end
    for _, cmd in ipairs(commands) do
        for _, other in ipairs(replies) do
            cases[#cases + 1] = { cmd = cmd, steps = { { "send", other.reply } },
                                  label = cmd.name .. " answered as " .. other.name }
        end
    end
    return cases
end

-- Every field of every VALUE line replaced.
local FIELDS = {
    { "^(VALUE )([^ ]+)", { "", "K", "kk", "other", ("k"):rep(250), ("k"):rep(3000) } },
    { "^(VALUE [^ ]+ )(%d+)", { "", "-1", "1.5", "0x1", "00", ("1"):rep(20), ("1"):rep(21) } },
    { "^(VALUE [^ ]+ %d+ )(%d+)", { "", "-1", "0", "1", "4", "6", "007", "99", "134217728", "134217729",
        "4294967295", "4294967301", "18446744073709551615", "18446744073709551616", ("9"):rep(100) } },
    { "^(VALUE [^ ]+ %d+ %d+)()", { " ", " 1", " 1 2", " x", "\r" } },
}

function _M.headers()
    local cases = {}
    for _, cmd in ipairs(commands) do
        local at = 1
        while not cmd.sparse and (cmd.kind == "get" or cmd.kind == "gets") do
            local from = cmd.reply:find("VALUE ", at, true)
            if not from then break end
            local before, line = cmd.reply:sub(1, from - 1), cmd.reply:sub(from)
            for _, field in ipairs(FIELDS) do
                for _, other in ipairs(field[2]) do
                    local changed = line:gsub(field[1], function(head) return head .. other end)
                    cases[#cases + 1] = { cmd = cmd, steps = { { "send", before .. changed } },
                        label = cmd.name .. ", " .. other:sub(1, 30) .. " in " .. line:match("[^\r]*") }
                end
            end
            at = from + 1
        end
    end
    return cases
end

-- Every word of the lines of meta commands' replies.
function _M.words()
    return meta.words(commands)
end

-- Line ends left out: CR, LF, both.
function _M.line_ends()
    local cases = {}
    for _, cmd in ipairs(commands) do
        local at = 1
        while true do
            local cr = cmd.reply:find("\r\n", at, true)
            if not cr then break end
            for _, other in ipairs{ "", "\r", "\n", "\n\r", "\r\r\n" } do
                cases[#cases + 1] = { cmd = cmd,
                    steps = { { "send", cmd.reply:sub(1, cr - 1) .. other .. cmd.reply:sub(cr + 2) } },
                    label = cmd.name .. ", line end at " .. cr .. " is " .. ("%q"):format(other) }
            end
            at = cr + 2
        end
    end
    return cases
end

return _M
