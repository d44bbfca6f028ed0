-- Methods on the connection of an object.
local native, glue = ...

local error, rawequal, tonumber, type = error, rawequal, tonumber, type

local settimeouts, bad_timeout = native.settimeouts, native.bad_timeout
local not_initialized = native.not_initialized
local connect, set_keepalive = native.connect, native.set_keepalive
local getreusedtimes, close = native.getreusedtimes, native.close
local go_on_connecting, handshake = glue.go_on_connecting, glue.handshake
local group = glue.group

local _M = glue.module

-- The results of a method whose object has no `sock`. The check itself is written out in each
-- method, because most of them run in every request.
local function uninitialized(self)
    return nil, not_initialized(self, rawequal(self, _M))
end

-- The last timeout that was set, and its value in milliseconds. Most callers set the same one
-- again.
local last, last_ms = 0, 0

-- A timeout as cosockets take it: anything but a number counts as 0.
local function milliseconds(timeout)
    if timeout == last then
        return last_ms
    end
    if type(timeout) ~= "number" then
        local number = tonumber(timeout)
        if not number and timeout ~= nil then
            bad_timeout(timeout)
        end
        timeout = number or 0
    end
    if not (timeout > -1 and timeout < 2147483648) then
        error("bad timeout value", 4)
    end
    last, last_ms = timeout, timeout < 1 and 0 or timeout - timeout % 1
    return last_ms
end

local function set_timeouts(self, connect_timeout, send_timeout, read_timeout)
    local sock = self.sock
    if not sock then
        return uninitialized(self)
    end
    local id = sock[ID]
    if id == false then
        -- never connected: the timeouts are only stored, without a call of a C function
        local connect_ms = milliseconds(connect_timeout)
        local send_ms = send_timeout == connect_timeout and connect_ms
            or milliseconds(send_timeout)
        local read_ms = read_timeout == send_timeout and send_ms
            or milliseconds(read_timeout)
        sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT], sock[READ_TIMEOUT] = connect_ms, send_ms, read_ms
    else
        settimeouts(sock, connect_timeout, send_timeout, read_timeout)
        if not id then
            group.set_timeouts(sock)
        end
    end
    return 1
end

_M.set_timeouts = set_timeouts

function _M.set_timeout(self, timeout)
    local sock = self.sock
    if sock and sock[ID] == false then
        local ms = milliseconds(timeout)
        sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT], sock[READ_TIMEOUT] = ms, ms, ms
        return 1
    end
    return set_timeouts(self, timeout, timeout, timeout)
end

function _M.connect(self, ...)
    local sock = self.sock
    if not sock then
        return uninitialized(self)
    end
    -- as `connect_sock` does, written out for speed
    local ok, err, options = connect(sock, sock[ID], sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT],
        sock[READ_TIMEOUT], sock[MULTIPLEX], ...)
    if ok ~= 1 then
        return go_on_connecting(sock, ok, err, options, ...)
    end
    sock[HOST], sock[PORT] = ...
    return ok
end

function _M.sslhandshake(self, ...)
    local sock = self.sock
    if not sock then
        return uninitialized(self)
    end
    if not sock[ID] and sock[GROUP] then
        return group.sslhandshake(sock, ...)
    end
    return handshake(sock, ...)
end

function _M.set_keepalive(self, ...)
    local sock = self.sock
    if not sock then
        return uninitialized(self)
    end
    local id = sock[ID]
    if not id and sock[GROUP] then
        return group.set_keepalive(sock, ...)
    end
    return set_keepalive(sock, id, ...)
end

function _M.get_reused_times(self)
    local sock = self.sock
    if not sock then
        return uninitialized(self)
    end
    if not sock[ID] and sock[GROUP] then
        return group.get_reused_times(sock)
    end
    return getreusedtimes(sock)
end

function _M.close(self)
    local sock = self.sock
    if not sock then
        return uninitialized(self)
    end
    if not sock[ID] and sock[GROUP] then
        return group.close(sock)
    end
    return close(sock)
end
