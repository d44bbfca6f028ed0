-- Commands with one key, for a group of servers.
local native, glue = ...

local rawequal, select, unpack = rawequal, select, unpack

local choose, server_of, bounded = native.group_choose, native.group_server_of, native.group_exptime
local failed = native.group_failed
local finish_get, finish_gets = native.finish_get, native.finish_gets
local new_pipeline, not_initialized = native.new_pipeline, native.not_initialized
local store, touch, gat, gats = native.store, native.touch, native.gat, native.gats
local AGAIN, ATTEMPTS = native.again, glue.attempts
local wire_key = glue.wire_key

local _M, group = glue.module, glue.group
local member_of, count, OURS = group.member, group.count, group.ours

-- Commands whose first argument behind the key is an exptime.
local HAS_EXPTIME = { [store] = true, [touch] = true, [gat] = true, [gats] = true }

-- An error where `finish` has it.
local function fail(finish, err)
    if finish == finish_get then
        return nil, nil, err
    elseif finish == finish_gets then
        return nil, nil, nil, err
    end
    return nil, err
end

local function counted(of, server, member, suspect, finish, ...)
    local err
    if finish == finish_get then
        err = select(3, ...)
    elseif finish == finish_gets then
        err = select(4, ...)
    else
        err = select(2, ...)
    end
    count(of, server, member, suspect, err)
    return ...
end

-- The server may have to be asked first what it can do.
local function checked(member, finish, start, ...)
    for _ = 1, ATTEMPTS do
        local id = member[ID]
        local result, err, more = finish(member, id, start(id, ...))
        if result ~= AGAIN then
            return result, err, more
        end
    end
    return nil, "the version of the server is unknown"
end

local function send(member, asks, finish, start, ...)
    if asks then
        return checked(member, finish, start, ...)
    end
    local id = member[ID]
    return finish(member, id, start(id, ...))
end

-- Commands that may have to ask first.
local ASKS = {
    [native.meta_get] = true, [native.meta_set] = true, [native.meta_delete] = true,
    [native.meta_arith] = true,
}

function group.run(sock, finish, start, key, escape, exptime, ...)
    local of = sock[GROUP]
    local name = of.name
    local server, host, port, suspect, gutter = choose(name, key, escape)
    local tried, why
    while server do
        local member, err = member_of(sock, of, server, host, port)
        if member then
            if gutter and HAS_EXPTIME[start] then
                exptime = bounded(exptime or 0, gutter)
            end
            return counted(of, server, member, suspect, finish,
                send(member, ASKS[start], finish, start, key, escape, exptime, ...))
        end
        if OURS[err] or sock[GROUP] ~= of then
            return fail(finish, err)
        end
        -- nothing was sent: the next server may have it
        failed(name, server)
        tried = tried or {}
        tried[#tried + 1], why = server, err
        server, host, port, suspect, gutter = choose(name, key, escape, unpack(tried))
    end
    if server == false then
        -- the key is refused: the command says so in the log, or raises for what else is wrong
        start(new_pipeline(), key, escape, exptime, ...)
    end
    return fail(finish, why or host)
end

-- The server that would take a key now.
function _M.server_of(self, key)
    local sock = self.sock
    if not sock then
        return nil, not_initialized(self, rawequal(self, _M))
    end
    if not sock[GROUP] then
        return nil, "not connected to an upstream"
    end
    local server, err = server_of(sock[GROUP].name, wire_key(self, key))
    if server then
        return server
    end
    return nil, err
end
