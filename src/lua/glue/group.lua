-- Servers used as one. An object that is connected to an `upstream` block has a
-- hidden object for each server that it has used, which is connected when a
-- command for that server comes. So pools, shared connections, TLS, timeouts and
-- errors are those of objects that are connected to the server themselves.
local native, glue = ...

local escape_uri = ngx.escape_uri
local error, find, next, pairs, rawget, select, type, unpack =
    error, string.find, next, pairs, rawget, select, type, unpack

local check_phase, group_for = native.check_phase, native.group_for
local choose, server_of, bounded = native.group_choose, native.group_server_of, native.group_exptime
local failed, succeeded, is_lost = native.group_failed, native.group_succeeded, native.is_lost
local wire_key = glue.wire_key

local _M = glue.module
local Sock = glue.sock_metatable.__index

-- The methods of objects that are connected to one server.
local plain = {}
for name, method in pairs(_M) do
    plain[name] = method
end

-- Errors of connect that say nothing about the server.
local OURS = {
    ["too many waiting connect operations"] = true,
    ["too many waiting operations"] = true,
    ["worker_connections are not enough"] = true,
    ["no memory"] = true,
    ["internal error"] = true,
    ["socket busy connecting"] = true,
    ["socket busy reading"] = true,
    ["socket busy writing"] = true,
    ["cannot wait in this coroutine: ngx_lua does not know it"] = true,
}

local function group_of(self)
    local sock = self.sock
    return sock and sock[GROUP]
end

-- Calls a method of all hidden objects that are connected. Returns 1, or the
-- first error.
local function for_all(group, method, ...)
    local result, why = 1, nil
    for _, member in pairs(group.members) do
        if not is_lost(member.sock[ID] or 0) then
            local ok, err = method(member, ...)
            if not ok and result then
                result, why = nil, err
            end
        end
    end
    if result then
        return 1
    end
    return nil, why
end

-- connecting

local function leave_group(self, group)
    self.sock[GROUP] = nil
    for_all(group, plain.close)
end

-- The options of connect, which all its servers have in common.
local function common_options(...)
    local options = select(select("#", ...), ...)
    if type(options) ~= "table" then
        return nil
    end
    if options.pool ~= nil then
        error("bad argument #" .. select("#", ...) .. " to 'connect' (\"pool\" is not for upstreams)", 3)
    end
    return { pool_size = options.pool_size, backlog = options.backlog }
end

function _M.connect(self, ...)
    local sock = self.sock
    local count = select("#", ...)
    if not sock or count == 0 or count > 3 then
        return plain.connect(self, ...)
    end
    local name, err = group_for(...)
    local before = sock[GROUP]
    if not name then
        if err then
            check_phase()
            return nil, err
        end
        if before then
            leave_group(self, before)
        end
        return plain.connect(self, ...)
    end
    check_phase()
    local options = common_options(...)
    if before then
        leave_group(self, before)
    elseif not is_lost(sock[ID] or 0) then
        local ok, why = plain.close(self)
        if not ok then
            return nil, why
        end
    end
    sock[GROUP] = { name = name, options = options, members = {} }
    return 1
end

-- Connects the hidden object of a server.
local function open(self, group, member, host, port)
    local sock, inner = self.sock, member.sock
    inner[CONNECT_TIMEOUT], inner[SEND_TIMEOUT], inner[READ_TIMEOUT] =
        sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT], sock[READ_TIMEOUT]
    if inner[ID] then
        plain.set_timeouts(member, sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT], sock[READ_TIMEOUT])
    end
    inner[MULTIPLEX] = sock[MULTIPLEX]
    inner[CERTIFICATE], inner[PRIVATE_KEY] = sock[CERTIFICATE], sock[PRIVATE_KEY]
    local ok, err = plain.connect(member, host, port, group.options)
    local handshake = group.handshake
    if ok and handshake then
        ok, err = plain.sslhandshake(member, unpack(handshake, 1, handshake.n))
        if not ok then
            plain.close(member)
        end
    end
    return ok, err
end

local function member_of(self, group, server, host, port)
    local member = group.members[server]
    if not member then
        member = plain.new(_M)
        group.members[server] = member
    elseif not is_lost(member.sock[ID] or 0) then
        if member.opening then
            return nil, "socket busy connecting"
        end
        return member
    end
    member.opening = true
    local ok, err = open(self, group, member, host, port)
    member.opening = nil
    if not ok then
        return nil, err
    end
    return member
end

function _M.sslhandshake(self, ...)
    local group = group_of(self)
    if not group then
        return plain.sslhandshake(self, ...)
    end
    group.handshake = { n = select("#", ...), ... }
    return true
end

function _M.set_timeouts(self, ...)
    local group = group_of(self)
    local ok, err = plain.set_timeouts(self, ...)
    if ok and group then
        for_all(group, plain.set_timeouts, ...)
    end
    return ok, err
end

function _M.set_timeout(self, timeout)
    local group = group_of(self)
    local ok, err = plain.set_timeout(self, timeout)
    if ok and group then
        for_all(group, plain.set_timeout, timeout)
    end
    return ok, err
end

function _M.close(self)
    local group = group_of(self)
    if not group then
        return plain.close(self)
    end
    self.sock[GROUP] = nil
    return for_all(group, plain.close)
end

function _M.set_keepalive(self, ...)
    local group = group_of(self)
    if not group then
        return plain.set_keepalive(self, ...)
    end
    self.sock[GROUP] = nil
    return for_all(group, plain.set_keepalive, ...)
end

function _M.get_reused_times(self)
    local group = group_of(self)
    if not group then
        return plain.get_reused_times(self)
    end
    local least
    for _, member in pairs(group.members) do
        local times = plain.get_reused_times(member)
        if times and (not least or times < least) then
            least = times
        end
    end
    return least or 0
end

-- commands with one key

local function identity(text)
    return text
end

local function fail(nils, err)
    if nils == 1 then
        return nil, err
    elseif nils == 2 then
        return nil, nil, err
    end
    return nil, nil, nil, err
end

-- Counts what came of a command. Only what ended the connection was a failure of
-- the server: errors that it says do not.
local function counted(group, server, member, suspect, nils, ...)
    local err = select(nils + 1, ...)
    if err ~= nil and not OURS[err] and is_lost(member.sock[ID] or 0) then
        failed(group.name, server)
    elseif suspect and (err == nil or find(err, "^[A-Z]")) then
        succeeded(group.name, server)
    end
    return ...
end

-- `exptime_at`: which argument behind the key is an exptime.
local function run(self, group, method, nils, exptime_at, key, ...)
    if rawget(self, "_reqs") then
        return fail(nils, "not for upstreams: pipeline")
    end
    local text, escape = wire_key(self, key)
    local tried, why = {}, nil
    while true do
        local server, host, port, suspect, gutter = choose(group.name, text, escape, unpack(tried))
        if not server then
            return fail(nils, why or host)
        end
        local member, err = member_of(self, group, server, host, port)
        if member then
            -- the key is ready if it is not to be escaped
            member.escape_key = escape and escape_uri or identity
            if gutter and exptime_at then
                local args = { ... }
                args[exptime_at] = bounded(args[exptime_at] or 0, gutter)
                return counted(group, server, member, suspect, nils,
                    method(member, text, unpack(args, 1, select("#", ...) > exptime_at
                        and select("#", ...) or exptime_at)))
            end
            return counted(group, server, member, suspect, nils, method(member, text, ...))
        end
        if OURS[err] then
            return fail(nils, err)
        end
        -- nothing was sent: the next server may have it
        failed(group.name, server)
        tried[#tried + 1], why = server, err
    end
end

local function by_key(name, nils, exptime_at)
    local method = plain[name]
    _M[name] = function(self, key, ...)
        local group = group_of(self)
        if not group then
            return method(self, key, ...)
        end
        if nils > 1 and type(key) == "table" then
            return nil, "not for upstreams: list of keys"
        end
        return run(self, group, method, nils, exptime_at, key, ...)
    end
end

by_key("get", 2)
by_key("gets", 3)
by_key("set", 1, 2)
by_key("add", 1, 2)
by_key("replace", 1, 2)
by_key("append", 1, 2)
by_key("prepend", 1, 2)
by_key("cas", 1, 3)
by_key("touch", 1, 1)
by_key("delete", 1)
by_key("incr", 1)
by_key("decr", 1)

-- The server that would take a key now.
function _M.server_of(self, key)
    local group = group_of(self)
    if not group then
        return nil, "not connected to an upstream"
    end
    local server, err = server_of(group.name, wire_key(self, key))
    if server then
        return server
    end
    return nil, err
end

-- What is not for groups, or not yet.

for _, name in next, { "flush_all", "stats", "version", "verbosity", "quit" } do
    local method = plain[name]
    _M[name] = function(self, ...)
        if group_of(self) then
            return nil, "not for upstreams: " .. name
        end
        return method(self, ...)
    end
end

function _M.init_pipeline(self, n)
    if group_of(self) then
        return "not for upstreams: pipeline"
    end
    return plain.init_pipeline(self, n)
end

for _, name in next, { "send", "receive" } do
    local method = Sock[name]
    Sock[name] = function(self, ...)
        if self[GROUP] then
            return nil, "not for upstreams: no server chosen"
        end
        return method(self, ...)
    end
end
