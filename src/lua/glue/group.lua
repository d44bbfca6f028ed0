-- Servers used as one. An object that is connected to an `upstream` block has a
-- hidden object for each server that it has used, which is connected when a
-- command for that server comes. So pools, shared connections, TLS, timeouts and
-- errors are those of objects that are connected to the server themselves.
local native, glue = ...

local escape_uri, unescape_uri = ngx.escape_uri, ngx.unescape_uri
local error, find, next, pairs, rawget, select, type, unpack =
    error, string.find, next, pairs, rawget, select, type, unpack

local check_phase, group_for = native.check_phase, native.group_for
local choose, server_of, bounded = native.group_choose, native.group_server_of, native.group_exptime
local failed, succeeded = native.group_failed, native.group_succeeded
local drop_session, is_lost = native.drop_session, native.is_lost
local running, status = coroutine.running, coroutine.status
local split, begin_many, wait_many = native.group_split, native.begin_many, native.wait_many
local finish_many, finish_many_raw = native.finish_many, native.finish_many_raw
local wire_key, wire_keys = glue.wire_key, glue.wire_keys

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

-- A coroutine that was killed, or an error, may have left a command behind whose
-- reply nobody will fetch. False if another coroutine is about to fetch it.
local function left_behind(member)
    local reader = member.reader
    if reader then
        if reader ~= running() and status(reader) ~= "dead" then
            return false
        end
        member.reader = nil
        drop_session(member.sock[ID] or 0)
    end
    return true
end

local function member_of(self, group, server, host, port)
    local member = group.members[server]
    if not member then
        member = plain.new(_M)
        group.members[server] = member
    elseif not left_behind(member) then
        return nil, "socket busy reading"
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

-- lists of keys

-- What is known of a list's servers and results.
local function note_error(list, server, err)
    list.err = list.err or err
    if server then
        list.errors = list.errors or {}
        list.errors[server] = err
    end
end

-- The keys of a server that could not be connected to go to the next one, nothing
-- having been sent yet.
local function move(group, list, part, escape)
    local tried = part.tried or {}
    tried[#tried + 1] = part[1]
    for _, key in next, part[5] do
        local server, host, port, suspect = choose(group.name, key, escape, unpack(tried))
        if not server then
            note_error(list, part[1], part.err)
        elseif list.connected[server] then
            local keys = list.connected[server][5]
            keys[#keys + 1] = key
        else
            local waiting = list.waiting[server]
            if not waiting then
                waiting = { server, host, port or false, suspect, {}, tried = { unpack(tried) } }
                list.waiting[server] = waiting
                list.parts[#list.parts + 1] = waiting
            end
            waiting[5][#waiting[5] + 1] = key
        end
    end
end

local function connect_all(self, group, list, escape)
    local at = 1
    while list.parts[at] do
        local part = list.parts[at]
        local server = part[1]
        list.waiting[server] = nil
        part.member, part.err = member_of(self, group, server, part[2], part[3] or nil)
        if part.member then
            list.connected[server] = part
        elseif OURS[part.err] then
            note_error(list, server, part.err)
        else
            failed(group.name, server)
            move(group, list, part, escape)
        end
        at = at + 1
    end
end

-- The results of one server.
local function gather(group, list, part, unescape, found, err)
    counted(group, part[1], part.member, part[4], 1, found, err)
    if not found then
        return note_error(list, part[1], err)
    end
    list.answered = true
    if unescape == unescape_uri then
        for key, item in pairs(found) do
            list.results[key] = item
        end
    else
        for i = 1, #found, 2 do
            list.results[unescape(found[i])] = found[i + 1]
        end
    end
end

-- All are sent before any is waited for.
local function get_list(self, group, keys, cas)
    if rawget(self, "_reqs") then
        return nil, "not for upstreams: pipeline"
    end
    local count = #keys
    if count == 0 then
        return {}, nil
    end
    local wired, escape = wire_keys(self, keys, count)
    local parts, homeless = split(group.name, wired, escape, cas)
    if not parts then
        return nil, homeless
    end
    local list = { parts = parts, waiting = {}, connected = {}, results = {} }
    for _, part in next, parts do
        list.waiting[part[1]] = part
    end
    if homeless > 0 then
        note_error(list, nil, "no live upstreams")
    end
    connect_all(self, group, list, escape)
    local unescape = self.unescape_key
    local native_keys = unescape == unescape_uri
    local sent = {}
    for _, part in next, parts do
        local member = part.member
        if member then
            local found, err = begin_many(member.sock[ID] or 0, part[5], escape, cas, native_keys)
            if found == true then
                member.reader = running()
                sent[#sent + 1] = part
            else
                gather(group, list, part, unescape, found, err)
            end
        end
    end
    local finish = native_keys and finish_many or finish_many_raw
    for _, part in next, sent do
        local sock = part.member.sock
        local id = sock[ID] or 0
        local found, err = finish(sock, id, wait_many(id, native_keys))
        part.member.reader = nil
        gather(group, list, part, unescape, found, err)
    end
    if not list.err then
        return list.results
    end
    return list.answered and list.results or nil, list.err, list.errors
end

local function by_key(name, nils, exptime_at)
    local method = plain[name]
    _M[name] = function(self, key, ...)
        local group = group_of(self)
        if not group then
            return method(self, key, ...)
        end
        if nils > 1 and type(key) == "table" then
            return get_list(self, group, key, nils == 3)
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
