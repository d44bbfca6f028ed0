-- The servers of scripts/differential, past both modules: reset, what is in them, and
-- what they were sent.

local values = require "differential.values"

local _M = {}

-- A connection of the test's own to a server, past both modules.
function _M.ask(side, address, text, lines)
    local socks = ngx.ctx.socks or {}
    ngx.ctx.socks = socks
    local sock = socks[address]
    if not sock then
        sock = ngx.socket.tcp()
        sock:settimeout(10000)
        if address == side.unix then
            assert(sock:connect(address))
        else
            assert(sock:connect("127.0.0.1", address, { pool = "admin" .. address }))
        end
        socks[address] = sock
    end
    assert(sock:send(text))
    for _ = 1, lines or 0 do assert(sock:receive()) end
    return sock
end

_M.RESET = "verbosity 0\r\nstats detail off\r\nstats reset\r\nflush_all\r\n"

-- How many commands of each kind a server has had since then.
function _M.counts(side)
    local sock, found = _M.ask(side, side.port, "stats\r\n"), {}
    while true do
        local line = assert(sock:receive())
        if line == "END" then return found end
        local name, count = line:match("^STAT ([a-z_]+) (%d+)$")
        if name and (name:find("_hits$") or name:find("_misses$") or name:find("^cmd_") or name == "cas_badval") then
            found[name] = count
        end
    end
end

-- Everything a server has under these keys: value, flags, unique, seconds left.
function _M.contents(side, address, keys)
    local found, commands = {}, {}
    for i, key in ipairs(keys) do commands[i] = "mg " .. key .. " v f c t\r\n" end
    local sock = _M.ask(side, address, table.concat(commands))
    for _, key in ipairs(keys) do
        local line = assert(sock:receive())
        if line ~= "EN" then
            local size, flags, unique, ttl = line:match("^VA (%d+) f(%d+) c(%d+) t(%-?%d+)$")
            assert(size, line)
            found[key] = { assert(sock:receive(tonumber(size))), flags, unique, ttl = tonumber(ttl) }
            assert(sock:receive(2))
        end
    end
    return found
end

local function usable(text)
    return type(text) == "string" and #text <= 250 and #text > 0 and not text:find("[%z\1-\32\127]")
end

-- Notes what a key may have become in the server, whatever the transform.
local function note_key(keys, key)
    if type(key) == "table" then
        for i = 1, #key do note_key(keys, key[i]) end
        return
    end
    local text = tostring(key)
    for _, f in pairs(values.escapes) do
        local ok, got = pcall(f, text)
        if ok and usable(got) then keys[got] = true end
    end
    text = ngx.escape_uri(text)
    if usable(text) then keys[text] = true end
end

_M.note_key = note_key

return _M
