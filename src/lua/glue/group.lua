-- Servers used as one. A `sock` that is connected to an `upstream` block has a hidden `sock` for
-- each server that it has used, its members, which are connected when a command for that server
-- comes. So pools, shared connections, TLS, timeouts and errors are those of objects that are
-- connected to the servers themselves. The id in a `sock` with a group is nil.
local native, glue = ...

local find, next, select, setmetatable, type, unpack =
    string.find, next, select, setmetatable, type, unpack

local begin_connect, wait_connect = native.begin_connect, native.wait_connect
local finish_connect = native.finish_connect
local begin_handshake, wait_handshake = native.begin_handshake, native.wait_handshake
local finish_handshake = native.finish_handshake
local close, set_keepalive = native.close, native.set_keepalive
local check_keepalive = native.check_keepalive
local settimeout, settimeouts = native.settimeout, native.settimeouts
local getreusedtimes = native.getreusedtimes
local failed, succeeded = native.group_failed, native.group_succeeded
local trial, untried = native.group_trial, native.group_untried
local attach = native.attach_server
local drop_session, is_lost = native.drop_session, native.is_lost
local endpoint, name_of = native.group_endpoint, native.group_name
local running, status = coroutine.running, coroutine.status
local address, check_handshake = glue.address, glue.check_handshake
local handshake_result, sock_metatable = glue.handshake_result, glue.sock_metatable

local group = glue.group

-- Errors of a connect that say nothing about the server.
local OURS = {
    ["too many waiting connect operations"] = true,
    ["too many waiting operations"] = true,
    ["worker_connections are not enough"] = true,
    ["no memory"] = true,
    ["no memory for the reply"] = true,
    ["internal error"] = true,
    ["socket busy connecting"] = true,
    ["socket busy reading"] = true,
    ["socket busy writing"] = true,
    ["cannot wait in this coroutine: ngx_lua does not know it"] = true,
}

-- Another coroutine uses it.
local BUSY = {
    ["socket busy connecting"] = true,
    ["socket busy reading"] = true,
    ["socket busy writing"] = true,
}

-- Groups that no object is connected to any more, by their numbers: their members are used again.
local spares = {}
local MAX_SPARES = 64

-- Calls `f` with each member that has a connection. Returns 1, or the first error.
local function for_all(of, f, ...)
    local result, why = 1, nil
    for i = 1, of.count do
        local member = of[i]
        local id = member[ID]
        if id and not is_lost(id) then
            local ok, err = f(member, id, ...)
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

-- Keeps an ended group, with its members, for the next object that connects to it.
local function put_back(of)
    local list = spares[of.number]
    if list and list.count < MAX_SPARES and not of.options and not of.handshake and not of.known then
        for i = 1, of.count do
            local member = of[i]
            member[ID], of[i] = false, false
        end
        of.count = 0
        local count = list.count + 1
        list[count], list.count = of, count
    end
end

-- Ends the use of a group, if it was not ended meanwhile. `err`: what is wrong with a member, if
-- anything is. While a member is busy the group stays, as a busy connection would.
local function leave(sock, of, err)
    if BUSY[err] then
        return nil, err
    end
    if sock[GROUP] == of then
        sock[ID], sock[GROUP] = false, false
        setmetatable(sock, sock_metatable)
        if not err then
            put_back(of)
        end
    end
    if err then
        return nil, err
    end
    return 1
end

local function close_member(member)
    return close(member)
end

local function close_group(sock)
    local of = sock[GROUP]
    local _, err = for_all(of, close_member)
    return leave(sock, of, err)
end

-- Bad arguments raise, whatever is connected, and leave all as it is.
local function keep_group(sock, ...)
    check_keepalive(sock, ...)
    local of = sock[GROUP]
    local why
    for i = 1, of.count do
        local member = of[i]
        local id = member[ID]
        local ok, err = set_keepalive(member, id, ...)
        if not ok and not is_lost(id) and (not why or BUSY[err]) then
            why = err
        end
    end
    return leave(sock, of, why)
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

local function set_member_timeouts(member, _, from)
    settimeouts(member, from[CONNECT_TIMEOUT], from[SEND_TIMEOUT], from[READ_TIMEOUT])
    return 1
end

-- The timeouts in the `sock` are its members', too.
function group.set_timeouts(sock)
    if sock[GROUP] then
        for_all(sock[GROUP], set_member_timeouts, sock)
    end
end

function group.get_reused_times(sock)
    local least
    local of = sock[GROUP]
    for i = 1, of.count do
        local times = getreusedtimes(of[i])
        if times and (not least or times < least) then
            least = times
        end
    end
    return least or 0
end

-- The arguments are those of all its connections.
function group.sslhandshake(sock, ...)
    check_handshake(sock, ...)
    sock[GROUP].handshake = { ... }
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

-- A group by its number or, if the worker does not know it any more, its name.
local function new_group(number)
    if not spares[number] then
        spares[number] = { count = 0 }
    end
    return {
        name = type(number) == "number" and name_of(number) or number,
        number = number, options = false, handshake = false,
        -- members by the names of their servers, and those in use in an array
        members = {}, count = 0,
    }
end

local function with_options(of, options)
    if type(options) == "table" and (options.pool_size or options.backlog) then
        of.options = { pool_size = options.pool_size, backlog = options.backlog }
    end
    return of
end

-- The `sock` gets a group. `options` are those of `connect`.
function group.connect(sock, number, options)
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
    local list = spares[number]
    local of
    if list and list.count > 0 then
        local count = list.count
        of = list[count]
        list[count], list.count = false, count - 1
    else
        of = new_group(number)
    end
    sock[ID] = nil
    sock[GROUP] = options and with_options(of, options) or of
    setmetatable(sock, group_metatable)
    return 1
end

-- The group of a client's `sock` stays with it. After each call the client gives back the members
-- that were in use.
function group.keep(sock)
    local of = new_group(sock[GROUP].number)
    of.options, of.known = sock[GROUP].options, 0
    sock[GROUP] = of
    return of
end

-- A coroutine that was killed, or an error, may have left a command behind whose reply nobody will
-- fetch. False if another coroutine is about to fetch it.
local function left_behind(member)
    local reader = member.reader
    if reader then
        if reader ~= running() and status(reader) ~= "dead" then
            return false
        end
        member.reader, member.opening = nil, nil
        drop_session(member[ID])
    end
    return true
end

local function new_member(of, server)
    local host, port = endpoint(server)
    -- its fields are those of every `sock`
    local member = setmetatable(
        { [GROUP] = false, false, 0, 0, 0, host, port, false, false, false, false, server },
        sock_metatable)
    of.members[server] = member
    of.known = of.known and of.known + 1
    return member
end

-- Begins to connect the member for a server. Returns it, and true if that has to be finished; or
-- nil and an error. `of` is the group.
local function begin_any_member(sock, of, server)
    local connect_ms, send_ms, read_ms = sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT], sock[READ_TIMEOUT]
    local member = of.members[server]
    local id = member and member[ID]
    if id then
        if not left_behind(member) then
            return nil, member.opening and "socket busy connecting" or "socket busy reading"
        elseif not is_lost(id) then
            return member
        end
        if of.known then
            -- the client has given it back
            local count = of.count + 1
            of[count], of.count = member, count
            if member.shares and attach(id, sock[MULTIPLEX], member[HOST], member[PORT]) then
                return member
            end
        else
            settimeouts(member, connect_ms, send_ms, read_ms)
        end
    else
        member = member or new_member(of, server)
        local count = of.count + 1
        of[count], of.count = member, count
    end
    local ok, err = begin_connect(member, member[ID], connect_ms, send_ms, read_ms,
        sock[MULTIPLEX], member[HOST], member[PORT], of.options)
    if not ok then
        return nil, err
    end
    if ok == 1 and not of.handshake then
        return member
    end
    member.reader, member.opening, member.waits = running(), true, ok ~= 1
    return member, true
end

-- As `begin_any_member`. `suspect`: the server has failed before.
local function begin_member(sock, of, server, suspect)
    local member, state = begin_any_member(sock, of, server)
    if suspect and member then
        trial(of.number, server, member[ID])
    end
    return member, state
end

-- Waits until a member's connection is established, and begins the handshake. Returns 1, or nil and
-- an error; or what a handshake has come to.
local function go_on_with_member(sock, of, member)
    if member.waits then
        local id = member[ID]
        local ok, err = finish_connect(member, id, wait_connect(id))
        if not ok then
            return nil, err
        end
        member.waits = false
    end
    local arguments = of.handshake
    if not arguments then
        return 1
    end
    local certificate, key = sock[CERTIFICATE], sock[PRIVATE_KEY]
    member[CERTIFICATE], member[PRIVATE_KEY] = certificate, key
    local session, server_name, verify, ocsp_status = unpack(arguments, 1, 4)
    local found, err = begin_handshake(member, address(session), server_name or nil, verify, ocsp_status,
        address(certificate), address(key), member[HOST], member[PORT] or 0)
    member.waits = found == true
    return found, err
end

-- Ends what was begun: `found, err` is what it has come to. Returns the member, or nil and an
-- error.
local function finish_member(sock, of, member, found, err)
    if member.waits and found then
        local id = member[ID]
        found, err = finish_handshake(member, id, wait_handshake(id))
    end
    member.reader, member.opening = nil, nil
    local arguments = of.handshake
    if arguments and found then
        handshake_result(arguments[1], nil, nil, found)
    end
    if found and sock[GROUP] ~= of then
        -- another coroutine has closed the object meanwhile
        found, err = nil, "closed"
    end
    if not found then
        if member[ID] and not is_lost(member[ID]) then
            close(member)
        end
        return nil, err
    end
    return member
end

-- The connected member for a server, or nil and an error. `suspect`: the server has failed before.
function group.member(sock, of, server, suspect)
    local member, state = begin_member(sock, of, server, suspect)
    if member and state then
        return finish_member(sock, of, member, go_on_with_member(sock, of, member))
    end
    return member, state
end

-- Connects to the servers of all parts of an operation at the same time. Each part has its server's
-- name, host and port, and gets a `member` or an `err`.
local function connect_all(sock, of, parts)
    local opening = {}
    for i = 1, #parts do
        local part = parts[i]
        local member, state = begin_member(sock, of, part[1], part[4])
        part.member = member
        if not member then
            part.err = state
        elseif state then
            opening[#opening + 1] = part
        end
    end
    for i = 1, #opening do
        local part = opening[i]
        part.found, part.err = go_on_with_member(sock, of, part.member)
    end
    for i = 1, #opening do
        local part = opening[i]
        part.member, part.err = finish_member(sock, of, part.member, part.found, part.err)
    end
end

-- As `connect_all`. Servers that cannot be connected to are added to those that were tried. True if
-- there are such: nothing was sent, so other servers may take their parts.
function group.connect_parts(sock, of, parts, tried)
    connect_all(sock, of, parts)
    local again = false
    for i = 1, #parts do
        local part = parts[i]
        local err = part.err
        if err and not OURS[err] and sock[GROUP] == of then
            failed(of.number, part[1])
            tried[#tried + 1] = part[1]
            again = true
        elseif err and part[4] then
            untried(of.number, part[1])
        end
    end
    return again
end

group.connect_all = connect_all

-- Whether the server has answered, though not with what was wanted: an error line, or more than a
-- limit of this module allows.
local function has_answered(err)
    return find(err, "^[A-Z]") or find(err, "exceeds the limit of", 1, true)
        or err == "bad reply: statistics too long"
end

-- Counts what came of a command. Only what ended the connection without an answer was a failure of
-- the server.
function group.count(of, server, member, suspect, err)
    if err == nil or has_answered(err) then
        if suspect then
            succeeded(of.number, server)
        end
    elseif not OURS[err] and is_lost(member[ID] or 0) then
        failed(of.number, server)
    elseif suspect then
        untried(of.number, server)
    end
end

group.ours = OURS
