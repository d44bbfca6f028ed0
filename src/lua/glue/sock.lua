-- memc.sock: the methods of a cosocket, for commands of the user's own.
--
-- A `sock` is an array. In all chunks the index of a field is a name in brackets, `sock[ID]`; the
-- number is put in its place before Lua reads the chunk, see fields.rs. A variable would be slower.
local native, glue = ...

local ffi = require "ffi"

local error, select, tonumber, type = error, select, tonumber, type
local TO_GROUP, LEAVE_GROUP = native.to_group, native.leave_group

local connect, finish_connect = native.connect, native.finish_connect
local send, finish_send = native.send, native.finish_send
local receive, finish_receive = native.receive, native.finish_receive
local sslhandshake, finish_handshake = native.sslhandshake, native.finish_handshake
local free_session = native.free_session

local Sock = {}

-- Functions that the chunks on groups of servers share, and those that other chunks call.
local group = {}

local connect_sock

-- What is left to do when `connect`, called with `...`, has returned anything but 1.
local function go_on_connecting(sock, ok, err, options, ...)
    if ok == TO_GROUP then
        return group.connect(sock, err, options)
    elseif ok == LEAVE_GROUP then
        local left, why = group.leave(sock)
        if not left then
            return nil, why
        end
        return connect_sock(sock, ...)
    end
    -- the connection is not established yet, or there is an error
    ok, err = finish_connect(sock, sock, ok, err)
    if not ok then
        return ok, err
    end
    sock[HOST], sock[PORT] = ...
    return ok
end

function connect_sock(sock, ...)
    local ok, err, options = connect(sock, sock[ID], sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT],
        sock[READ_TIMEOUT], sock[MULTIPLEX], ...)
    if ok ~= 1 then
        return go_on_connecting(sock, ok, err, options, ...)
    end
    -- After an error the connection may still be to the old peer.
    sock[HOST], sock[PORT] = ...
    return ok
end

Sock.connect = connect_sock

function Sock.send(self, ...)
    return finish_send(self, self, send(self, ...))
end

function Sock.receive(self, ...)
    return finish_receive(self, self, receive(self, ...))
end

-- A pointer of ngx_lua's FFI functions as the native functions take it.
local function address(pointer)
    if type(pointer) ~= "cdata" then
        return 0
    end
    return tonumber(ffi.cast("uintptr_t", ffi.cast("void *", pointer)))
end

-- What the native function returns instead of an address for the session that it was given.
local SAME_SESSION = native.same_session

-- The certificate and its key are passed to be held while the handshake waits.
local function handshake_result(wanted, _, _, found, err)
    if not found then
        return nil, err
    end
    if wanted == false then
        if found ~= 0 then
            free_session(found)
        end
        return true
    end
    if found == SAME_SESSION then
        return wanted
    end
    local session = ffi.cast("void *", found)
    if found == 0 then
        return session
    end
    return ffi.gc(session, function()
        free_session(found)
    end)
end

local function check_handshake(sock, _, server_name, _, _, ...)
    local extra = select("#", ...)
    if not sock or extra > 0 then
        error("ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen "
            .. (sock and 5 + extra or 0), 3)
    end
    if server_name and type(server_name) ~= "string" then
        error("bad server name argument (string expected, got " .. type(server_name) .. ")", 3)
    end
end

local function handshake(sock, session, server_name, verify, status, ...)
    check_handshake(sock, session, server_name, verify, status, ...)
    local certificate, key = sock[CERTIFICATE], sock[PRIVATE_KEY]
    return handshake_result(session, certificate, key, finish_handshake(sock, sock, sslhandshake(sock,
        address(session), server_name or nil, verify, status,
        address(certificate), address(key), sock[HOST], tonumber(sock[PORT]) or 0)))
end

glue.address, glue.check_handshake, glue.handshake_result = address, check_handshake, handshake_result

Sock.sslhandshake = handshake

function Sock.setclientcert(self, cert, key)
    if not cert and not key then
        self[CERTIFICATE], self[PRIVATE_KEY] = nil, nil
        return true
    end
    if not cert or not key then
        return nil, "client certificate must be supplied with corresponding private key"
    end
    -- ngx.ssl returns untyped pointers; no other FFI value can be a certificate
    if not ffi.istype("void *", cert) then
        return nil, "bad cert arg: cdata expected, got " .. type(cert)
    end
    if not ffi.istype("void *", key) then
        return nil, "bad pkey arg: cdata expected, got " .. type(key)
    end
    self[CERTIFICATE], self[PRIVATE_KEY] = cert, key
    return true
end

Sock.settimeout = native.settimeout
Sock.settimeouts = native.settimeouts
Sock.setkeepalive = native.setkeepalive
Sock.getreusedtimes = native.getreusedtimes
Sock.close = native.close

glue.sock_metatable = { __index = Sock }
glue.group = group
glue.connect_sock, glue.go_on_connecting = connect_sock, go_on_connecting
glue.handshake = handshake
