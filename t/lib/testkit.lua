-- What the suites share: printing results exactly, clients of the real
-- memcached, and scripted servers that say what a real memcached won't.

local ffi = require "ffi"
local bit = require "bit"

ffi.cdef[[
int tk_socket(int, int, int) __asm__("socket");
int tk_bind(int, const void *, unsigned) __asm__("bind");
int tk_listen(int, int) __asm__("listen");
int tk_accept(int, void *, void *, int) __asm__("accept4");
int tk_name(int, void *, unsigned *) __asm__("getsockname");
int tk_opt(int, int, int, const void *, unsigned) __asm__("setsockopt");
int tk_getopt(int, int, int, void *, unsigned *) __asm__("getsockopt");
int tk_connect(int, const void *, unsigned) __asm__("connect");
long tk_recv(int, void *, size_t, int) __asm__("recv");
long tk_send(int, const void *, size_t, int) __asm__("send");
int tk_shutdown(int, int) __asm__("shutdown");
int tk_close(int) __asm__("close");
int tk_kill(int, int) __asm__("kill");
int onebyte_is_on;
]]

local C = ffi.C
local AF_UNIX, AF_INET = 1, 2
local SOCK = bit.bor(1, 0x800, 0x80000) -- STREAM, NONBLOCK, CLOEXEC
local MSG_NOSIGNAL = 0x4000
local EAGAIN = 11

local _M = { port = 0, unix = nil }

-- Whether each byte comes by itself, see onebyte.c.
function _M.byte_by_byte()
    local preloaded, on = pcall(function() return C.onebyte_is_on end)
    return preloaded and on ~= 0
end

-- Results, printed so that types and the number of values show.

local function escape(c)
    if c == "\r" then return "\\r" end
    if c == "\n" then return "\\n" end
    if c == '"' then return '\\"' end
    return string.format("\\x%02x", c:byte())
end

-- What groups add to results: tables with something for each server.
local function is_server(v)
    return _M.by_upstream and type(v) == "string" and v:find("^127%.0%.0%.%d+:%d+$")
end

local function is_by_server(v)
    if type(v) ~= "table" then return false end
    local server, err = next(v)
    return is_server(server) and type(err) == "string" and next(v, server) == nil
end

function _M.fmt(v)
    local t = type(v)
    if t == "string" then
        if #v > 200 then
            return "<" .. #v .. " bytes " .. ngx.crc32_short(v) .. ">"
        end
        return '"' .. v:gsub('[%c"\127-\255]', escape) .. '"'
    end
    if t == "table" then
        local keys, out, n = {}, {}, #v
        for i = 1, n do out[i] = _M.fmt(v[i]) end
        for k in pairs(v) do
            if not (type(k) == "number" and k >= 1 and k <= n or is_server(k)) then
                keys[#keys + 1] = k
            end
        end
        table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
        for _, k in ipairs(keys) do
            out[#out + 1] = (type(k) == "string" and k:match("^[%w_]+$")
                or "[" .. _M.fmt(k) .. "]") .. "=" .. _M.fmt(v[k])
        end
        return "{" .. table.concat(out, ", ") .. "}"
    end
    if t == "function" or t == "userdata" or t == "thread" then
        return t
    end
    return tostring(v)
end

-- All values given, comma separated; "(none)" when there are none.
function _M.vals(...)
    local n = select("#", ...)
    if n == 3 and is_by_server((select(n, ...))) then n = n - 1 end
    if n == 0 then return "(none)" end
    local out = {}
    for i = 1, n do out[i] = _M.fmt((select(i, ...))) end
    return table.concat(out, ", ")
end

-- show("label", f(...)): one line of output.
function _M.show(label, ...)
    ngx.say(label, ": ", _M.vals(...))
end

-- For results whose number of trailing nils is nobody's business.
function _M.trim(...)
    local n = select("#", ...)
    while n > 1 and select(n, ...) == nil do n = n - 1 end
    return unpack({...}, 1, n)
end

local function caught(ok, ...)
    if ok then return "returned " .. _M.vals(...) end
    local err = ...
    if type(err) ~= "string" then return "raised a " .. type(err) end
    return "raised a string", (err:gsub("^[^\n]-:%d+: ", ""))
end

-- What a call did: its results, or that it raised (and the text, without
-- its position, as a second value).
function _M.raises(f, ...)
    return (caught(pcall(f, ...)))
end

function _M.raise_text(f, ...)
    local what, text = caught(pcall(f, ...))
    return text or what
end

-- Objects. With `by_client` the commands of those below go through clients, see clientkit.lua. With
-- `by_upstream` they are connected to upstreams, whose pools have no names.

function _M.new(opts)
    local memc, err = require("resty.memcached"):new(opts)
    assert(memc, err)
    memc:set_timeout(5000)
    return memc
end

function _M.connect(port, opts, new_opts)
    local memc = _M.new(new_opts)
    if _M.by_client then
        return require("clientkit").behind(memc, port or _M.port, opts, new_opts)
    end
    if _M.by_upstream and opts and opts.pool then
        opts = { pool_size = opts.pool_size, backlog = opts.backlog }
    end
    assert(memc:connect("127.0.0.1", port or _M.port, opts))
    if _M.by_upstream and not new_opts then
        assert(memc:server_of("key")) -- a plain object would prove nothing
    end
    return memc
end

-- A connection of its own to the real memcached, never pooled, with an
-- empty cache behind it.
function _M.fresh(new_opts)
    local memc = _M.connect(nil, { pool = "fresh" .. math.random() }, new_opts)
    assert(memc:flush_all())
    return memc
end

local serial = 0

-- Does the connection answer the question asked?
function _M.in_step(memc)
    serial = serial + 1
    local want = "step" .. serial
    local key = "in_" .. want
    local ok, err = memc:set(key, want)
    if not ok then return "no: set: " .. tostring(err) end
    local got, _, gerr = memc:get(key)
    if got ~= want then
        return "no: got " .. tostring(got) .. " " .. tostring(gerr)
    end
    return "yes"
end

-- One figure of the server's general statistics, over its own connection.
function _M.stat(name)
    local memc = _M.connect(nil, { pool = "stat" .. math.random() }, { multiplex = false })
    local lines = assert(memc:stats())
    memc:close()
    for _, line in ipairs(lines) do
        local v = line:match("^STAT " .. name .. " (.*)$")
        if v then return tonumber(v) or v end
    end
end

-- Waits until f() is true, at most `secs`; says whether it became true.
function _M.eventually(f, secs)
    local till = ngx.now() + (secs or 3)
    repeat
        if f() then return true end
        ngx.sleep(0.005)
        ngx.update_time()
    until ngx.now() > till
    return false
end

-- Milliseconds f took, then its results.
function _M.timed(f, ...)
    ngx.update_time()
    local from = ngx.now()
    local function done(...)
        ngx.update_time()
        return (ngx.now() - from) * 1000, ...
    end
    return done(f(...))
end

-- A request to this nginx: its body. With `secs` the client hangs up after
-- that time without reading an answer.
function _M.http(port, path, secs)
    local sock = ngx.socket.tcp()
    sock:settimeout(10000)
    assert(sock:connect("127.0.0.1", port))
    assert(sock:send("GET " .. path .. " HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    if secs then
        ngx.sleep(secs)
        return sock:close()
    end
    local answer = assert(sock:receive("*a"))
    sock:close()
    return (answer:gsub("^.-\r\n\r\n", ""):gsub("\n$", ""))
end

local function slurp(path)
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    return text
end

-- SIGHUP for the master; the suite has said master_on().
function _M.reload()
    local master = slurp("/proc/self/stat"):match("%) %S (%d+)")
    assert(slurp("/proc/" .. master .. "/comm") == "nginx\n", "no master process")
    C.tk_kill(tonumber(master), 1)
end

-- What one block's locations share across their requests.
_M.shared = {}

-- Servers. They live in the same worker, poll, and never block it.

local conn = {}
conn.__index = conn

local buf = ffi.new("char[65536]")

-- Takes what is there: true, or false at the end of the stream.
function conn:fill()
    if not self.fd then return false end
    local n = tonumber(C.tk_recv(self.fd, buf, 65536, 0))
    if n > 0 then
        self.input = self.input .. ffi.string(buf, n)
        self.total = self.total + n
        return true
    end
    if n < 0 and ffi.errno() == EAGAIN then
        ngx.sleep(0.001)
        return not self.server.stopped
    end
    return false
end

-- One line without its line break, or nil at the end of the stream.
function conn:line()
    while true do
        local at = self.input:find("\n", 1, true)
        if at then
            local line = self.input:sub(1, at - 1):gsub("\r$", "")
            self.input = self.input:sub(at + 1)
            return line
        end
        if not self:fill() then return nil end
    end
end

function conn:read(n)
    while #self.input < n do
        if not self:fill() then return nil end
    end
    local data = self.input:sub(1, n)
    self.input = self.input:sub(n + 1)
    return data
end

-- Everything that arrives within `secs`.
function conn:drain(secs)
    local till = ngx.now() + (secs or 0.05)
    while ngx.now() < till do
        if not self:fill() then break end
        ngx.update_time()
    end
    local data = self.input
    self.input = ""
    return data
end

function conn:send(data)
    local at, len = 0, #data
    while at < len do
        if not self.fd then return nil end
        local n = tonumber(C.tk_send(self.fd,
            ffi.cast("const char *", data) + at, len - at, MSG_NOSIGNAL))
        if n >= 0 then
            at = at + n
        elseif ffi.errno() == EAGAIN and not self.server.stopped then
            ngx.sleep(0.001)
        else
            return nil
        end
    end
    return true
end

-- Sends `data` in pieces of `size` bytes, `secs` apart.
function conn:trickle(data, size, secs)
    for i = 1, #data, size do
        if not self:send(data:sub(i, i + size - 1)) then return nil end
        ngx.sleep(secs)
    end
    return true
end

-- How many segments with data came, which for small writes is how many writes.
function conn:segments()
    local info, len = ffi.new("uint32_t[64]"), ffi.new("unsigned[1]", 256)
    assert(C.tk_getopt(self.fd, 6, 11, info, len) == 0, "getsockopt") -- TCP_INFO
    return tonumber(info[38]) -- tcpi_data_segs_in
end

function conn:close()
    if self.fd then
        C.tk_close(self.fd)
        self.fd = nil
    end
end

function conn:half_close()
    if not self.fd then return end
    C.tk_shutdown(self.fd, 1)
end

-- Closes with RST instead of FIN.
function conn:reset()
    if not self.fd then return end
    C.tk_opt(self.fd, 1, 13, ffi.new("int[2]", 1, 0), 8)
    self:close()
end

-- Waits for the peer to close; says whether it did within `secs`.
function conn:closed_by_peer(secs)
    local till = ngx.now() + (secs or 2)
    while ngx.now() < till do
        if not self:fill() then return true end
        ngx.update_time()
    end
    return false
end

local server = {}
server.__index = server

local function address(path, port, last)
    local sa = ffi.new("unsigned char[110]")
    local family = ffi.cast("uint16_t *", sa)
    if path then
        family[0] = AF_UNIX
        ffi.copy(sa + 2, path)
        return sa, 2 + #path + 1
    end
    family[0] = AF_INET
    sa[2], sa[3] = bit.rshift(port, 8), bit.band(port, 255)
    sa[4], sa[7] = 127, last or 1
    return sa, 16
end

-- Binds to a port that has an upstream; false if none is left.
local function bind_known(fd, last)
    for _ = 1, #_M.free_ports do
        _M.port_at = (_M.port_at or 0) % #_M.free_ports + 1
        local sa, len = address(nil, _M.free_ports[_M.port_at], last)
        if C.tk_bind(fd, sa, len) == 0 then return true end
    end
    return false
end

-- A listening socket that accepts nothing by itself. `opts`: backlog, path
-- (a unix socket), port (default: a free one) and last (of 127.0.0.1).
function _M.listen(opts)
    opts = opts or {}
    local fd = C.tk_socket(opts.path and AF_UNIX or AF_INET, SOCK, 0)
    assert(fd >= 0, "socket")
    C.tk_opt(fd, 1, 2, ffi.new("int[1]", 1), 4)
    if opts.path then os.remove(opts.path) end
    local sa, len = address(opts.path, opts.port or 0, opts.last)
    if _M.by_upstream and not opts.path and not opts.port then
        assert(bind_known(fd, opts.last), "no port is left")
    else
        assert(C.tk_bind(fd, sa, len) == 0, "bind")
    end
    assert(C.tk_listen(fd, opts.backlog or 64) == 0, "listen")
    local port
    if not opts.path then
        local n = ffi.new("unsigned[1]", 110)
        C.tk_name(fd, sa, n)
        port = sa[2] * 256 + sa[3]
    end
    return setmetatable({ fd = fd, port = port, path = opts.path, conns = {},
                          accepted = 0, stopped = false }, server)
end

-- A raw nonblocking connection attempt to the server (fills its backlog).
function server:knock()
    local fd = C.tk_socket(AF_INET, SOCK, 0)
    local sa, len = address(nil, self.port)
    C.tk_connect(fd, sa, len)
    local c = setmetatable({ fd = fd, input = "", total = 0, server = self }, conn)
    self.conns[#self.conns + 1] = c
    return c
end

-- The next connection, or nil when the server was closed meanwhile.
function server:accept()
    while not self.stopped and not self.deaf do
        local fd = C.tk_accept(self.fd, nil, nil, bit.bor(0x800, 0x80000))
        if fd >= 0 then
            C.tk_opt(fd, 6, 1, ffi.new("int[1]", 1), 4) -- TCP_NODELAY
            self.accepted = self.accepted + 1
            local c = setmetatable({ fd = fd, input = "", total = 0, server = self,
                                     index = self.accepted }, conn)
            self.conns[#self.conns + 1] = c
            return c
        end
        ngx.sleep(0.001)
    end
end

-- Runs handler(conn) for every connection until the server is closed. A
-- handler that returns leaves its connection open; close() ends it.
function server:serve(handler)
    ngx.thread.spawn(function()
        while true do
            local c = self:accept()
            if not c then return end
            ngx.thread.spawn(handler, c)
        end
    end)
    return self
end

-- Its connections stay, but nobody can connect to it any more.
function server:refuse()
    self.deaf = true        -- ends the thread that accepts
    ngx.sleep(0.005)
    C.tk_close(self.fd)
    self.fd = nil
end

function server:close()
    self.stopped = true
    if self.fd then C.tk_close(self.fd) end
    self.fd = nil
    for _, c in ipairs(self.conns) do c:close() end
    if self.path then os.remove(self.path) end
end

-- fake(handler): a server at a free port of 127.0.0.1 (its `port`).
function _M.fake(handler, opts)
    return _M.listen(opts):serve(handler)
end

-- A server that answers the n-th line of each connection with replies[n].
-- A reply of false closes the connection, "RST" resets it.
function _M.replies(...)
    local list = {...}
    return _M.fake(function(c)
        c.server.lines = c.server.lines or {}
        for _, reply in ipairs(list) do
            local line = c:line()
            if not line then return end
            table.insert(c.server.lines, line)
            if reply == false then return c:close() end
            if reply == "RST" then return c:reset() end
            c:send(reply)
        end
        while c:line() do end
    end)
end

return _M
