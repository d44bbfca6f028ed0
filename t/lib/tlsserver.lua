-- Scripted servers (see testkit) that speak TLS themselves, with the OpenSSL that nginx has, so
-- that they can be slow, and say at any time what TLS itself has to say.

local ffi = require "ffi"
local kit = require "testkit"

ffi.cdef[[
void *tt_method(void) __asm__("TLS_server_method");
void *tt_ctx_new(const void *) __asm__("SSL_CTX_new");
int tt_ctx_chain(void *, const char *) __asm__("SSL_CTX_use_certificate_chain_file");
int tt_ctx_key(void *, const char *, int) __asm__("SSL_CTX_use_PrivateKey_file");
void *tt_new(void *) __asm__("SSL_new");
void tt_free(void *) __asm__("SSL_free");
long tt_ctrl(void *, int, long, void *) __asm__("SSL_ctrl");
int tt_set_fd(void *, int) __asm__("SSL_set_fd");
int tt_accept(void *) __asm__("SSL_accept");
int tt_read(void *, void *, int) __asm__("SSL_read");
int tt_write(void *, const void *, int) __asm__("SSL_write");
int tt_handshake(void *) __asm__("SSL_do_handshake");
int tt_key_update(void *, int) __asm__("SSL_key_update");
int tt_ticket(void *) __asm__("SSL_new_session_ticket");
int tt_error(const void *, int) __asm__("SSL_get_error");
void tt_clear(void) __asm__("ERR_clear_error");
]]

local C = ffi.C
local WANT_READ, WANT_WRITE = 2, 3
local MAX_VERSION = 124 -- SSL_CTRL_SET_MAX_PROTO_VERSION
local MOVING = 2 -- SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
local RECORD = 16384

-- certs: the directory of TestCerts.
local _M = { certs = nil, VERSION = { ["1.2"] = 0x0303, ["1.3"] = 0x0304 } }

local buf = ffi.new("char[65536]")
local context

local function make_context()
    local ctx = C.tt_ctx_new(C.tt_method())
    assert(C.tt_ctx_chain(ctx, _M.certs .. "/good.pem") == 1, "certificate")
    assert(C.tt_ctx_key(ctx, _M.certs .. "/good.key", 1) == 1, "key")
    return ctx
end

-- Calls f(ssl, ...) until it is done: its result; nil at the end of the connection.
local function patiently(c, f, ...)
    while c.fd and not c.server.stopped do
        C.tt_clear()
        local n = f(c.ssl, ...)
        if n > 0 then return n end
        local why = C.tt_error(c.ssl, n)
        C.tt_clear()
        if why ~= WANT_READ and why ~= WANT_WRITE then return nil end
        ngx.sleep(0.001)
    end
end

local function fill(c)
    local n = patiently(c, C.tt_read, buf, 65536)
    if not n then return false end
    c.input = c.input .. ffi.string(buf, n)
    c.total = c.total + n
    return true
end

local function send(c, data)
    for at = 1, #data, RECORD do
        local part = data:sub(at, at + RECORD - 1)
        if not patiently(c, C.tt_write, part, #part) then return nil end
    end
    return true
end

-- Has the keys of this direction changed, and asks the client to change its own (TLS 1.3).
local function key_update(c)
    assert(C.tt_key_update(c.ssl, 1) == 1, "key update")
    return patiently(c, C.tt_handshake)
end

-- Gives the client a further session ticket (TLS 1.3).
local function ticket(c)
    assert(C.tt_ticket(c.ssl) == 1, "ticket")
    return patiently(c, C.tt_handshake)
end

-- Takes n bytes, however many they are, and calls slow(c) before each read; nil at the end.
local function body(c, n, slow)
    local parts, got = { c.input }, #c.input
    while got < n do
        if slow then slow(c) end
        c.input = ""
        if not c:fill() then return nil end
        parts[#parts + 1] = c.input
        got = got + #c.input
    end
    local all = table.concat(parts)
    c.input = all:sub(n + 1)
    return all:sub(1, n)
end

-- A server that runs handler(c) for each connection once its handshake is done. `opts`: version (the
-- highest), window (size of the socket's receive buffer), plain (no TLS at all).
function _M.fake(handler, opts)
    context = context or make_context()
    local srv = kit.listen()
    if opts.window then C.tk_opt(srv.fd, 1, 8, ffi.new("int[1]", opts.window), 4) end
    return srv:serve(function(c)
        if not opts.plain then
            c.ssl = ffi.gc(C.tt_new(context), C.tt_free)
            C.tt_ctrl(c.ssl, 33, MOVING, nil) -- SSL_CTRL_MODE
            C.tt_ctrl(c.ssl, MAX_VERSION, _M.VERSION[opts.version or "1.3"], nil)
            C.tt_set_fd(c.ssl, c.fd)
            c.fill, c.send = fill, send
            if not patiently(c, C.tt_accept) then return c:close() end
        end
        c.body, c.key_update, c.ticket = body, key_update, ticket
        handler(c)
    end)
end

return _M
