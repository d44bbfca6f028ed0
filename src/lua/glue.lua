-- The methods of resty.memcached over the native functions in `native`. What
-- has to be Lua is here: fields of the object, key transforms (which may
-- yield or raise, and have done so before anything is sent), open pipelines.
local native = ...

local ffi = require "ffi"

local escape_uri, unescape_uri = ngx.escape_uri, ngx.unescape_uri
local concat = table.concat
local error, rawget, select, setmetatable = error, rawget, select, setmetatable
local tonumber, type = tonumber, type

local check_phase = native.check_phase
local connect, finish_connect = native.connect, native.finish_connect
local settimeout, settimeouts = native.settimeout, native.settimeouts
local setkeepalive, set_keepalive = native.setkeepalive, native.set_keepalive
local getreusedtimes = native.getreusedtimes
local close = native.close
local sslhandshake, finish_handshake = native.sslhandshake, native.finish_handshake
local free_session = native.free_session
local send, finish_send = native.send, native.finish_send
local receive, finish_receive = native.receive, native.finish_receive
local get, finish_get = native.get, native.finish_get
local gets, finish_gets = native.gets, native.finish_gets
local get_many, finish_many = native.get_many, native.finish_many
local finish_many_raw = native.finish_many_raw
local store, delete = native.store, native.delete
local incr, decr, touch = native.incr, native.decr, native.touch
local flush_all, stats = native.flush_all, native.stats
local server_version, verbosity = native.server_version, native.verbosity
local finish_line = native.finish_line
local quit, finish_quit = native.quit, native.finish_quit
local new_pipeline, pipeline_length = native.new_pipeline, native.pipeline_length
local commit, finish_commit = native.commit, native.finish_commit

local SET, ADD, REPLACE, APPEND, PREPEND, CAS = 0, 1, 2, 3, 4, 5

-- memc.sock, for commands of the user's own

local Sock = {}
local sock_mt = { __index = Sock }

-- Fields of `sock` beside those that handle.rs uses: where it is connected
-- to, and a client certificate.
local HOST, PORT, MULTIPLEX, CERTIFICATE, KEY = 5, 6, 8, 9, 10

local function connect_sock(sock, ...)
    local ok, err = connect(sock, sock[1], sock[2], sock[3], sock[4], sock[MULTIPLEX], ...)
    if ok ~= 1 then
        -- it is not there yet, or there is an error
        ok, err = finish_connect(sock, sock, ok, err)
        if not ok then
            return ok, err
        end
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

-- What the native function returns instead of an address for the session that
-- it was given.
local SAME_SESSION = 1

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

local function handshake(sock, session, server_name, verify, status, ...)
    local extra = select("#", ...)
    if not sock or extra > 0 then
        error("ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen "
            .. (sock and 5 + extra or 0), 2)
    end
    if server_name and type(server_name) ~= "string" then
        error("bad server name argument (string expected, got " .. type(server_name) .. ")", 2)
    end
    local certificate, key = sock[CERTIFICATE], sock[KEY]
    return handshake_result(session, certificate, key, finish_handshake(sock, sock, sslhandshake(sock,
        address(session), server_name or nil, verify, status,
        address(certificate), address(key), sock[HOST], tonumber(sock[PORT]) or 0)))
end

Sock.sslhandshake = handshake

function Sock.setclientcert(self, cert, key)
    if not cert and not key then
        self[CERTIFICATE], self[KEY] = nil, nil
        return true
    end
    if not cert or not key then
        return nil, "client certificate must be supplied with corresponding private key"
    end
    -- what ngx.ssl parses is untyped; other FFI values are surely no certificate
    if not ffi.istype("void *", cert) then
        return nil, "bad cert arg: cdata expected, got " .. type(cert)
    end
    if not ffi.istype("void *", key) then
        return nil, "bad pkey arg: cdata expected, got " .. type(key)
    end
    self[CERTIFICATE], self[KEY] = cert, key
    return true
end

Sock.settimeout = settimeout
Sock.settimeouts = settimeouts
Sock.setkeepalive = setkeepalive
Sock.getreusedtimes = getreusedtimes
Sock.close = close

-- the module

local _M = { _VERSION = native.version }
local mt = { __index = _M }

function _M.new(_, opts)
    check_phase()

    if not opts then
        return setmetatable({
            sock = setmetatable({ false, 0, 0, 0, false, false, false, false }, sock_mt),
            escape_key = escape_uri,
            unescape_key = unescape_uri,
        }, mt)
    end

    local escape_key, unescape_key = escape_uri, unescape_uri
    local transform = opts.key_transform
    if transform then
        escape_key, unescape_key = transform[1], transform[2]
        if not escape_key or not unescape_key then
            return nil, "expecting key_transform = { escape, unescape } table"
        end
    end

    -- room for the id, the timeouts, the peer, the handle and `multiplex`, see
    -- handle.rs; what is absent would be looked for in `sock_mt`
    local sock = { false, 0, 0, 0, false, false, false, false }
    local multiplex = opts.multiplex
    if multiplex ~= nil then
        if multiplex == false then
            multiplex = -1
        elseif type(multiplex) ~= "number" or not (multiplex >= 1 and multiplex <= 64)
            or multiplex % 1 ~= 0 then
            return nil, "bad multiplex option: expecting false or an integer from 1 to 64"
        end
        sock[MULTIPLEX] = multiplex
    end

    return setmetatable({
        sock = setmetatable(sock, sock_mt),
        escape_key = escape_key,
        unescape_key = unescape_key,
    }, mt)
end

-- Commands take a `sock` by the id of its session, which is in its first field,
-- or, if it has had none, as it is. To `finish_*` it goes, too, so that the object is
-- not collected while its command waits.

-- A key as the native functions take it: text, and whether to escape it. The
-- default transform is theirs to apply; of another one only the first result
-- counts.
local function wire_key(self, key)
    local escape = self.escape_key
    if escape == escape_uri then
        if type(key) == "string" then
            return key, true
        end
        return escape_uri(key), false
    end
    return (escape(key)), false
end

-- A timeout as cosockets take it: what is no number counts as 0.
local function milliseconds(timeout)
    if type(timeout) ~= "number" then
        timeout = tonumber(timeout) or 0
    end
    if not (timeout > -1 and timeout < 2147483648) then
        error("bad timeout value", 4)
    end
    return timeout < 1 and 0 or timeout - timeout % 1
end

local function set_timeouts(self, connect_timeout, send_timeout, read_timeout)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    if sock[1] == false then
        -- never connected: only kept, without a call
        local connect_ms = milliseconds(connect_timeout)
        local send_ms = send_timeout == connect_timeout and connect_ms
            or milliseconds(send_timeout)
        local read_ms = read_timeout == send_timeout and send_ms
            or milliseconds(read_timeout)
        sock[2], sock[3], sock[4] = connect_ms, send_ms, read_ms
    else
        settimeouts(sock, connect_timeout, send_timeout, read_timeout)
    end
    return 1
end

function _M.set_timeouts(self, connect_timeout, send_timeout, read_timeout)
    return set_timeouts(self, connect_timeout, send_timeout, read_timeout)
end

function _M.set_timeout(self, timeout)
    local sock = self.sock
    if sock and sock[1] == false then
        local ms = milliseconds(timeout)
        sock[2], sock[3], sock[4] = ms, ms, ms
        return 1
    end
    return set_timeouts(self, timeout, timeout, timeout)
end

function _M.connect(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return connect_sock(sock, ...)
end

function _M.sslhandshake(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return handshake(sock, ...)
end

function _M.set_keepalive(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return set_keepalive(sock, sock[1], ...)
end

function _M.get_reused_times(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return getreusedtimes(sock)
end

function _M.close(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return close(sock)
end

-- retrieval

-- The keys of a list are escaped natively if they are strings as they stand.
local function wire_keys(self, keys, count)
    local escape = self.escape_key
    if escape == escape_uri then
        local plain = true
        for i = 1, count do
            if type(keys[i]) ~= "string" or rawget(keys, i) == nil then
                plain = false
                break
            end
        end
        if plain then
            return keys, true
        end
    end
    local wired = {}
    for i = 1, count do
        local key = escape(keys[i])
        local kind = type(key)
        if kind == "number" then
            key = "" .. key
        elseif kind ~= "string" then
            error("bad key argument (string or number expected, got " .. kind .. ")", 3)
        end
        wired[i] = key
    end
    return wired, false
end

local function unescape_results(unescape, found, err)
    if not found then
        return nil, err
    end
    local results = {}
    for i = 1, #found, 2 do
        results[unescape(found[i])] = found[i + 1]
    end
    return results
end

local function get_list(self, keys, cas)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local count = #keys
    if count == 0 then
        return {}, nil
    end
    local wired, escape = wire_keys(self, keys, count)
    local id = sock[1] or sock
    local unescape = self.unescape_key
    if unescape == unescape_uri then
        return finish_many(sock, id, get_many(id, wired, escape, cas, true))
    end
    return unescape_results(unescape,
        finish_many_raw(sock, id, get_many(id, wired, escape, cas, false)))
end

function _M.get(self, key)
    if type(key) == "table" then
        return get_list(self, key, false)
    end
    local sock = self.sock
    if not sock then
        return nil, nil, "not initialized"
    end
    local text, escape = key, true
    if type(key) ~= "string" or self.escape_key ~= escape_uri then
        text, escape = wire_key(self, key)
    end
    local id = sock[1] or sock
    return finish_get(sock, id, get(rawget(self, "_reqs") or id, text, escape))
end

function _M.gets(self, key)
    if type(key) == "table" then
        return get_list(self, key, true)
    end
    local sock = self.sock
    if not sock then
        return nil, nil, nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[1] or sock
    return finish_gets(sock, id, gets(id, text, escape))
end

-- storage

local function joined(value)
    local parts = {}
    for i = 1, #value do
        local part = value[i]
        parts[i] = type(part) == "table" and joined(part) or part
    end
    return concat(parts)
end

local function storage(self, verb, key, value, exptime, flags)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    if type(value) == "table" then
        value = joined(value)
    end
    local text, escape = wire_key(self, key)
    local id = sock[1] or sock
    return finish_line(sock, id, store(rawget(self, "_reqs") or id, verb,
        text, escape, value, exptime or "0", flags or "0"))
end

function _M.set(self, key, value, exptime, flags)
    return storage(self, SET, key, value, exptime, flags)
end

function _M.add(self, key, value, exptime, flags)
    return storage(self, ADD, key, value, exptime, flags)
end

function _M.replace(self, key, value, exptime, flags)
    return storage(self, REPLACE, key, value, exptime, flags)
end

function _M.append(self, key, value, exptime, flags)
    return storage(self, APPEND, key, value, exptime, flags)
end

function _M.prepend(self, key, value, exptime, flags)
    return storage(self, PREPEND, key, value, exptime, flags)
end

function _M.cas(self, key, value, cas_unique, exptime, flags)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[1] or sock
    return finish_line(sock, id, store(id, CAS,
        text, escape, value, exptime or "0", flags or "0", cas_unique))
end

-- other commands

function _M.delete(self, key)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[1] or sock
    return finish_line(sock, id, delete(rawget(self, "_reqs") or id, text, escape))
end

function _M.incr(self, key, delta)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[1] or sock
    return finish_line(sock, id, incr(rawget(self, "_reqs") or id, text, escape, delta))
end

function _M.decr(self, key, delta)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[1] or sock
    return finish_line(sock, id, decr(rawget(self, "_reqs") or id, text, escape, delta))
end

function _M.touch(self, key, exptime)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[1] or sock
    return finish_line(sock, id, touch(rawget(self, "_reqs") or id, text, escape, exptime))
end

function _M.flush_all(self, time)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local id = sock[1] or sock
    return finish_line(sock, id, flush_all(id, time or nil))
end

function _M.stats(self, args)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local id = sock[1] or sock
    return finish_line(sock, id, stats(rawget(self, "_reqs") or id, args or nil))
end

function _M.version(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local id = sock[1] or sock
    return finish_line(sock, id, server_version(id))
end

function _M.quit(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local id = sock[1] or sock
    return finish_quit(sock, id, quit(id))
end

function _M.verbosity(self, level)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local id = sock[1] or sock
    return finish_line(sock, id, verbosity(rawget(self, "_reqs") or id, level))
end

-- pipelines

function _M.init_pipeline(self, n)
    if self._reqs then
        return "already init pipeline"
    end
    if n and type(n) ~= "number" then
        return "bad n arg: number expected, but got " .. type(n)
    end
    self._reqs = new_pipeline()
    return nil
end

function _M.cancel_pipeline(self)
    self._reqs = nil
end

function _M.commit_pipeline(self)
    local pipeline = rawget(self, "_reqs")
    self._reqs = nil
    if not pipeline then
        return nil, "no pipeline"
    end
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    if pipeline_length(pipeline) == 0 then
        return nil, "no more cmds"
    end
    local id = sock[1] or sock
    return finish_commit(pipeline, sock, id, commit(id, pipeline))
end

return _M
