-- Servers used as one. A `sock` that is connected to an `upstream` block has a
-- hidden `sock` for each server that it has used, its members, which are
-- connected when a command for that server comes. So pools, shared connections,
-- TLS, timeouts and errors are those of objects that are connected to the servers
-- themselves. The id in a `sock` with a group is nil.
local native, glue = ...

local find, next, select, setmetatable, type, unpack =
    string.find, next, select, setmetatable, type, unpack

local connect_server, finish_connect = native.connect_server, native.finish_connect
local close, set_keepalive = native.close, native.set_keepalive
local check_keepalive = native.check_keepalive
local settimeout, settimeouts = native.settimeout, native.settimeouts
local getreusedtimes = native.getreusedtimes
local failed, succeeded = native.group_failed, native.group_succeeded
local drop_session, is_lost = native.drop_session, native.is_lost
local running, status = coroutine.running, coroutine.status
local handshake, sock_metatable = glue.handshake, glue.sock_metatable

local group = glue.group

-- Errors of a connect that say nothing about the server.
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

-- Calls `f` with each member that has a connection. Returns 1, or the first error.
local function for_all(members, f, ...)
    local result, why = 1, nil
    for _, member in next, members do
        local id = member[ID]
        if id and not is_lost(id) then
            local ok, err = f(member, ...)
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

-- Ends the use of a group: `f` is called with its members. While one of them is
-- busy the group stays, as a connection would.
local function leave(sock, f, ...)
    local of = sock[GROUP]
    local ok, err = for_all(of.members, f, ...)
    if not ok and find(err, "^socket busy") then
        return nil, err
    end
    if sock[GROUP] == of then
        sock[ID], sock[GROUP] = false, false
        setmetatable(sock, sock_metatable)
    end
    if ok then
        return 1
    end
    return nil, err
end

local function close_group(sock)
    return leave(sock, close)
end

local function keep(member, ...)
    return set_keepalive(member, member[ID], ...)
end

-- Bad arguments raise, whatever is connected, and leave all as it is.
local function keep_group(sock, ...)
    check_keepalive(sock, ...)
    return leave(sock, keep, ...)
end

function group.leave(sock)
    if sock[GROUP] then
        local _, err = close_group(sock)
        if sock[GROUP] then
            return nil, err
        end
    else
        sock[ID] = false
    end
    return true
end

group.close, group.set_keepalive = close_group, keep_group

local function set_member_timeouts(member, from)
    settimeouts(member, from[CONNECT_TIMEOUT], from[SEND_TIMEOUT], from[READ_TIMEOUT])
    return 1
end

-- The timeouts in the `sock` are its members', too.
function group.set_timeouts(sock)
    if sock[GROUP] then
        for_all(sock[GROUP].members, set_member_timeouts, sock)
    end
end

function group.get_reused_times(sock)
    local least
    for _, member in next, sock[GROUP].members do
        local times = getreusedtimes(member)
        if times and (not least or times < least) then
            least = times
        end
    end
    return least or 0
end

-- The arguments are those of all its connections.
function group.sslhandshake(sock, ...)
    sock[GROUP].handshake = { n = select("#", ...), ... }
    return true
end

-- What can be done with `memc.sock`.
local Sock = setmetatable({}, sock_metatable)
local group_metatable = { __index = Sock }

Sock.close, Sock.setkeepalive = close_group, keep_group
Sock.getreusedtimes, Sock.sslhandshake = group.get_reused_times, group.sslhandshake

function Sock.settimeout(sock, ...)
    settimeout(sock, ...)
    group.set_timeouts(sock)
end

function Sock.settimeouts(sock, ...)
    settimeouts(sock, ...)
    group.set_timeouts(sock)
end

local function no_server()
    return nil, "not for upstreams: no server chosen"
end

Sock.send, Sock.receive = no_server, no_server

-- connecting

-- The `sock` gets the group of a block. `options` are those of `connect`.
function group.connect(sock, name, options)
    if sock[GROUP] then
        local ok, err = group.leave(sock)
        if not ok then
            return nil, err
        end
    elseif sock[ID] then
        local ok, err = close(sock)
        if not ok and err ~= "closed" then
            return nil, err
        elseif not ok and not is_lost(sock[ID]) then
            return nil, "socket busy connecting"
        end
    end
    if type(options) == "table" then
        options = { pool_size = options.pool_size, backlog = options.backlog }
    else
        options = nil
    end
    sock[ID] = nil
    sock[GROUP] = { name = name, options = options, members = {} }
    setmetatable(sock, group_metatable)
    return 1
end

-- Connects the member for a server.
local function open(sock, of, member, host, port)
    local connect_ms, send_ms, read_ms = sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT], sock[READ_TIMEOUT]
    if member[ID] then
        settimeouts(member, connect_ms, send_ms, read_ms)
    end
    local ok, err = connect_server(member, member[ID], connect_ms, send_ms, read_ms,
        sock[MULTIPLEX], host, port, of.options)
    if ok ~= 1 then
        ok, err = finish_connect(member, member, ok, err)
        if not ok then
            return nil, err
        end
    end
    local arguments = of.handshake
    if arguments then
        member[HOST], member[PORT] = host, port
        member[CERTIFICATE], member[PRIVATE_KEY] = sock[CERTIFICATE], sock[PRIVATE_KEY]
        ok, err = handshake(member, unpack(arguments, 1, arguments.n))
        if not ok then
            close(member)
            return nil, err
        end
    end
    if sock[GROUP] ~= of then
        -- another coroutine has closed the object meanwhile
        close(member)
        return nil, "closed"
    end
    return member
end

-- A coroutine that was killed, or an error, may have left a command behind whose
-- reply nobody will fetch. False if another coroutine is about to fetch it.
local function left_behind(member)
    local reader = member.reader
    if reader then
        if reader ~= running() and status(reader) ~= "dead" then
            return false
        end
        member.reader = nil
        drop_session(member[ID])
    end
    return true
end

-- The connected member for a server, or nil and an error. `of` is the group.
function group.member(sock, of, server, host, port)
    local members = of.members
    local member = members[server]
    if not member then
        -- its fields are those of every `sock`
        member = setmetatable({ false, 0, 0, 0, false, false, false, false, false, false, false },
            sock_metatable)
        members[server] = member
    elseif not left_behind(member) then
        return nil, "socket busy reading"
    elseif member[ID] and not is_lost(member[ID]) then
        return member
    end
    return open(sock, of, member, host, port)
end

-- Counts what came of a command. Only what ended the connection was a failure of
-- the server: errors that it says do not.
function group.count(of, server, member, suspect, err)
    if err ~= nil and not OURS[err] and is_lost(member[ID] or 0) then
        failed(of.name, server)
    elseif suspect and (err == nil or find(err, "^[A-Z]")) then
        succeeded(of.name, server)
    end
end

group.ours = OURS
