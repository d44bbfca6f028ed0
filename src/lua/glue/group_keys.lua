-- Commands with one key, for a group of servers.
local native, glue = ...

local next, pairs, rawequal, select = next, pairs, rawequal, select
local tonumber, type, unpack = tonumber, type, unpack

local pick = native.group_pick
local choose, server_of, bounded = native.group_choose, native.group_server_of, native.group_exptime
local failed, untried = native.group_failed, native.group_untried
local get, finish_get, finish_gets = native.get, native.finish_get, native.finish_gets
local new_pipeline, not_initialized = native.new_pipeline, native.not_initialized
local store, touch, gat, gats = native.store, native.touch, native.gat, native.gats
local meta_set = native.meta_set
local AGAIN, ATTEMPTS = native.again, glue.attempts
local wire_key = glue.wire_key

local _M, group = glue.module, glue.group
local member_of, count, OURS = group.member, group.count, group.ours

-- Commands whose first argument behind the key is an exptime.
local HAS_EXPTIME = { [store] = true, [touch] = true, [gat] = true, [gats] = true }

-- Options of meta commands that say how long a value lives.
local TTLS = {
    [native.meta_get] = { "touch", "vivify" },
    [native.meta_set] = { "ttl", "vivify" },
    [native.meta_delete] = { "ttl" },
    [native.meta_arith] = { "ttl", "vivify" },
}

local function limited_options(start, limit, options)
    if options ~= nil and type(options) ~= "table" then
        return options
    end
    local copy = {}
    for name, value in pairs(options or copy) do
        copy[name] = value
    end
    local mode = copy.mode
    if start == meta_set and copy.ttl == nil and mode ~= "append" and mode ~= "prepend" then
        copy.ttl = 0
    end
    for _, name in next, TTLS[start] do
        local value = copy[name]
        if tonumber(value) then
            copy[name] = tonumber(bounded(value, limit))
        end
    end
    return copy
end

-- The arguments behind the key, for a server where values live so many seconds at most.
local function limited(start, limit, first, second, ...)
    if HAS_EXPTIME[start] then
        return bounded(first or 0, limit), second, ...
    elseif start == meta_set then
        return first, limited_options(start, limit, second), ...
    elseif TTLS[start] then
        return limited_options(start, limit, first), second, ...
    end
    return first, second, ...
end

-- An error where `finish` has it.
local function fail(finish, err)
    if finish == finish_get then
        return nil, nil, err
    elseif finish == finish_gets then
        return nil, nil, nil, err
    end
    return nil, err
end

local function counted(of, member, suspect, finish, ...)
    local err
    if finish == finish_get then
        err = select(3, ...)
    elseif finish == finish_gets then
        err = select(4, ...)
    else
        err = select(2, ...)
    end
    if err ~= nil or suspect then
        count(of, member[SERVER], member, suspect, err)
    end
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

-- Connects to the first of a key's servers that can be connected to: `server` or one of the next.
-- Returns its member, the member's id, and as `pick` does; or nil, nil and an error.
local function reach(sock, of, key, escape, server, suspect, gutter)
    local tried, why
    while server do
        local member, err = member_of(sock, of, server, suspect)
        if member then
            return member, member[ID], suspect, gutter
        end
        if OURS[err] or sock[GROUP] ~= of then
            if suspect then
                untried(of.number, server)
            end
            return nil, nil, err
        end
        -- nothing was sent: the next server may have it
        failed(of.number, server)
        tried = tried or {}
        tried[#tried + 1], why = server, err
        local _
        server, _, _, suspect, gutter = choose(of.number, key, escape, unpack(tried))
    end
    return nil, nil, why
end

-- Finds a member where `pick` alone has found none: it is to be connected, or the key is refused.
local function find(sock, of, key, escape, server, suspect, gutter)
    if server then
        return reach(sock, of, key, escape, server, suspect, gutter)
    elseif suspect then
        -- false: the key is refused
        return server, nil, suspect
    end
    -- the worker has another configuration now, in which the group is known by its name only
    of.number = of.name
    local id
    server, id, suspect, gutter = pick(of.number, of.members, key, escape)
    if id then
        return server, id, suspect, gutter
    elseif server then
        return reach(sock, of, key, escape, server, suspect, gutter)
    end
    return server, nil, suspect or "no live upstreams"
end

local function send(of, member, id, suspect, finish, start, ...)
    if TTLS[start] then
        return counted(of, member, suspect, finish, checked(member, finish, start, ...))
    end
    return counted(of, member, suspect, finish, finish(member, id, start(id, ...)))
end

function group.run(sock, finish, start, key, escape, ...)
    local of = sock[GROUP]
    local member, id, suspect, gutter = pick(of.number, of.members, key, escape)
    if not id then
        member, id, suspect, gutter = find(sock, of, key, escape, member, suspect, gutter)
        if not id then
            if member == false then
                -- the command logs that, or raises if another argument is wrong
                start(new_pipeline(), key, escape, ...)
            end
            return fail(finish, suspect)
        end
    end
    if gutter then
        return send(of, member, id, suspect, finish, start, key, escape,
            limited(start, gutter, ...))
    end
    return send(of, member, id, suspect, finish, start, key, escape, ...)
end

-- As `group.run` of `get`, written out for speed.
function group.get(sock, key, escape)
    local of = sock[GROUP]
    local member, id, suspect, gutter = pick(of.number, of.members, key, escape)
    if not id then
        member, id, suspect, gutter = find(sock, of, key, escape, member, suspect, gutter)
        if not id then
            if member == false then
                get(new_pipeline(), key, escape)
            end
            return nil, nil, suspect
        end
    end
    local value, flags, err = finish_get(member, id, get(id, key, escape))
    if value and not suspect then
        return value, flags
    end
    if err ~= nil or suspect then
        count(of, member[SERVER], member, suspect, err)
    end
    if value then
        return value, flags
    end
    return nil, nil, err
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
