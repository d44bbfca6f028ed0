-- What the suites about TLS share: what a client said in its hello, what a
-- TLS server saw of it, and a relay that can stop or cut a handshake.

local kit = require "testkit"

-- port: memcached on TLS; web: the web servers of TestCerts, by certificate.
local _M = { port = 0, web = {} }

local function number(s, at, bytes)
    local n = 0
    for i = at, at + bytes - 1 do n = n * 256 + (s:byte(i) or 0) end
    return n
end

-- The first record of a client (a string): its server name, whether it asks
-- for an OCSP response, and the highest version it offers. RFC 5246, 7.4.1.2;
-- RFC 6066, 3 and 8; RFC 8446, 4.2.1.
function _M.hello(record)
    if record:byte(1) ~= 22 or record:byte(6) ~= 1 then return nil, "no client hello" end
    local said = { status = false, version = number(record, 10, 2) }
    local at = 12 + 32
    said.session_id = record:byte(at)
    at = at + 1 + said.session_id
    at = at + 2 + number(record, at, 2)
    at = at + 1 + number(record, at, 1)
    local till = at + 2 + number(record, at, 2)
    at = at + 2
    while at < till do
        local kind, len = number(record, at, 2), number(record, at + 2, 2)
        if kind == 0 then
            said.name = record:sub(at + 9, at + 3 + len)
        elseif kind == 5 then
            said.status = true
        elseif kind == 35 then
            said.ticket = len > 0
        elseif kind == 43 then
            said.version = number(record, at + 5, 2)
        end
        at = at + 4 + len
    end
    said.version = string.format("%04x", said.version)
    return said
end

-- Reads one whole record of a kit connection: nil at the end of the stream.
function _M.record(c)
    local head = c:read(5)
    if not head then return nil end
    local body = c:read(number(head, 4, 2))
    return body and head .. body
end

-- The kinds of the handshake messages in a record that rules(c, way, record) sees:
-- RFC 5246, 7.4. None if it is encrypted, as all are behind a ChangeCipherSpec.
function _M.messages(record, c, way)
    local kinds, at = {}, 6
    if record:byte(1) == 20 then
        c["sealed " .. way] = true
    end
    while not c["sealed " .. way] and record:byte(1) == 22 and at < #record do
        kinds[record:byte(at)] = true
        at = at + 4 + number(record, at + 1, 3)
    end
    return kinds
end

-- A server that keeps what its clients said in `hellos`, and hangs up.
function _M.listener()
    local hellos = {}
    local srv = kit.fake(function(c)
        hellos[#hellos + 1] = _M.hello(_M.record(c) or "")
        c:close()
    end)
    srv.hellos = hellos
    return srv
end

-- Text that a TLS web server answers on the object's connection, through the
-- raw socket; nil and the error.
function _M.ask(memc, path)
    local sock = memc.sock
    local sent, err = sock:send("GET " .. (path or "/") .. " HTTP/1.1\r\nHost: localhost\r\n\r\n")
    if not sent then return nil, err end
    local size
    while true do
        local line
        line, err = sock:receive()
        if not line then return nil, err end
        if line == "" then break end
        size = line:match("^[Cc]ontent%-[Ll]ength: (%d+)") or size
    end
    return sock:receive(tonumber(size))
end

-- Joins the connection c of a scripted server to the TLS server at `port`.
-- rules(c, way, record, n) sees the n-th record in either direction ("up" is
-- from the client), returns what goes on (nil: nothing), and may close c.
-- Returns whether the client's first bytes were a record of TLS.
function _M.join(c, port, rules)
    while #c.input == 0 do
        if not c:fill() then return nil end
    end
    if c.input:byte(1) ~= 22 then return false end
    local up = ngx.socket.tcp()
    up:settimeouts(1000, 1000, 60000)
    assert(up:connect("127.0.0.1", port))
    local down = ngx.thread.spawn(function()
        for n = 1, math.huge do
            local head = up:receive(5)
            local body = head and up:receive(number(head, 4, 2))
            if not body then break end
            local data = rules(c, "down", head .. body, n)
            if data then c:send(data) end
        end
        c:close()
    end)
    for n = 1, math.huge do
        local record = _M.record(c)
        if not record then break end
        local data = rules(c, "up", record, n)
        if data then up:send(data) end
    end
    ngx.thread.kill(down)
    up:close()
    return true
end

-- A server that does this with every connection.
function _M.relay(port, rules)
    return kit.fake(function(c) _M.join(c, port, rules) end)
end

-- A server that speaks what its client speaks: TLS through the server at
-- `port`, or plain text, and then it answers each line with "VERSION plain".
-- Its fields count the plain connections and the handshakes.
function _M.both(port)
    local srv = kit.listen()
    srv.plain, srv.handshakes = 0, 0
    local function rules(c, way, record)
        if _M.messages(record, c, way)[2] then
            srv.handshakes = srv.handshakes + 1
        end
        return record
    end
    return srv:serve(function(c)
        if _M.join(c, port, rules) ~= false then return end
        srv.plain = srv.plain + 1
        while c:line() do c:send("VERSION plain\r\n") end
    end)
end

-- The type of a handshake's first result, with what it is when it is plain.
function _M.kind(...)
    local n = select("#", ...)
    local first = ...
    if type(first) == "cdata" or type(first) == "userdata" then
        first = first == nil and "no session" or "session"
        if n == 1 then return first end
        return first, select(2, ...)
    end
    return ...
end

-- A connection that has shaken hands; the arguments after the port are
-- sslhandshake's.
function _M.connect(port, ...)
    local memc = kit.connect(port or _M.port)
    assert(memc:sslhandshake(...))
    return memc
end

-- One whole visit to a web server: what the handshake returned, then what the
-- server says at `path` (or nothing after an error).
function _M.visit(port, path, ...)
    local memc = kit.connect(port)
    local first, err = _M.kind(memc:sslhandshake(...))
    if not first then return first, err, memc:close() end
    local text = _M.ask(memc, path)
    memc:close()
    return first, text
end

-- show(label, memc:sslhandshake(...))
function _M.show(label, ...) kit.show(label, _M.kind(...)) end

return _M
