-- Methods that send commands. A command goes to an open pipeline, if there is one and the command
-- can be in it, or to the session.
local native, glue = ...

local escape_uri, unescape_uri = ngx.escape_uri, ngx.unescape_uri
local concat = table.concat
local rawequal, rawget, type = rawequal, rawget, type

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
local not_initialized = native.not_initialized
local wire_key, wire_keys, method = glue.wire_key, glue.wire_keys, glue.method
local elsewhere, group = glue.elsewhere, glue.group

local _M = glue.module

-- retrieval

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

glue.unescape_results = unescape_results

local function get_list(self, keys, cas)
    local sock = self.sock
    if not sock then
        return nil, not_initialized(self, rawequal(self, _M))
    end
    local count = #keys
    if count == 0 then
        return {}, nil
    end
    local wired, escape = wire_keys(self, keys, count)
    local id = sock[ID]
    if not id then
        if sock[GROUP] then
            return group.get_list(self, sock, wired, escape, cas)
        end
        id = sock
    end
    local unescape = self.unescape_key
    if unescape == unescape_uri then
        return finish_many(sock, id, get_many(id, wired, escape, cas, true))
    end
    return unescape_results(unescape,
        finish_many_raw(sock, id, get_many(id, wired, escape, cas, false)))
end

function _M.get(self, key)
    local kind = type(key)
    if kind == "table" then
        return get_list(self, key, false)
    end
    local sock = self.sock
    if not sock then
        return nil, nil, not_initialized(self, rawequal(self, _M))
    end
    local text, escape = key, true
    if kind ~= "string" or self.escape_key ~= escape_uri then
        text, escape = wire_key(self, key)
    end
    local id = sock[ID]
    if not id then
        local requests = rawget(self, "_reqs")
        if sock[GROUP] and not requests then
            return group.get(sock, text, escape)
        end
        return elsewhere(sock, requests, finish_get, get, text, escape)
    end
    return finish_get(sock, id, get(rawget(self, "_reqs") or id, text, escape))
end

function _M.gets(self, key)
    if type(key) == "table" then
        return get_list(self, key, true)
    end
    local sock = self.sock
    if not sock then
        return nil, nil, nil, not_initialized(self, rawequal(self, _M))
    end
    local text, escape = wire_key(self, key)
    local id = sock[ID]
    if not id then
        return elsewhere(sock, nil, finish_gets, gets, text, escape)
    end
    return finish_gets(sock, id, gets(id, text, escape))
end

-- storage: written out for speed, as `get` is

local verbs = native.verbs
local SET, ADD, REPLACE = verbs.SET, verbs.ADD, verbs.REPLACE
local APPEND, PREPEND, CAS = verbs.APPEND, verbs.PREPEND, verbs.CAS

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
        return nil, not_initialized(self, rawequal(self, _M))
    end
    if type(value) == "table" then
        value = joined(value)
    end
    local text, escape = wire_key(self, key)
    local id = sock[ID]
    if not id then
        return elsewhere(sock, rawget(self, "_reqs"), finish_line, store, text, escape,
            exptime or "0", verb, value, flags or "0")
    end
    return finish_line(sock, id, store(rawget(self, "_reqs") or id,
        text, escape, exptime or "0", verb, value, flags or "0"))
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
        return nil, not_initialized(self, rawequal(self, _M))
    end
    local text, escape = wire_key(self, key)
    local id = sock[ID]
    if not id then
        return elsewhere(sock, nil, finish_line, store, text, escape,
            exptime or "0", CAS, value, flags or "0", cas_unique)
    end
    return finish_line(sock, id, store(id,
        text, escape, exptime or "0", CAS, value, flags or "0", cas_unique))
end

-- other commands

_M.delete = method(function(self, sock, id, key)
    local text, escape = wire_key(self, key)
    if not id then
        return elsewhere(sock, rawget(self, "_reqs"), finish_line, delete, text, escape)
    end
    return finish_line(sock, id, delete(rawget(self, "_reqs") or id, text, escape))
end)

_M.incr = method(function(self, sock, id, key, delta)
    local text, escape = wire_key(self, key)
    if not id then
        return elsewhere(sock, rawget(self, "_reqs"), finish_line, incr, text, escape, delta)
    end
    return finish_line(sock, id, incr(rawget(self, "_reqs") or id, text, escape, delta))
end)

_M.decr = method(function(self, sock, id, key, delta)
    local text, escape = wire_key(self, key)
    if not id then
        return elsewhere(sock, rawget(self, "_reqs"), finish_line, decr, text, escape, delta)
    end
    return finish_line(sock, id, decr(rawget(self, "_reqs") or id, text, escape, delta))
end)

_M.touch = method(function(self, sock, id, key, exptime)
    local text, escape = wire_key(self, key)
    if not id then
        return elsewhere(sock, rawget(self, "_reqs"), finish_line, touch, text, escape, exptime)
    end
    return finish_line(sock, id, touch(rawget(self, "_reqs") or id, text, escape, exptime))
end)

-- commands without a key

_M.stats = method(function(self, sock, id, args)
    if not id then
        if sock[GROUP] and not rawget(self, "_reqs") then
            return group.stats(sock, args or nil)
        end
        id = sock
    end
    return finish_line(sock, id, stats(rawget(self, "_reqs") or id, args or nil))
end)

_M.verbosity = method(function(self, sock, id, level)
    if not id then
        if sock[GROUP] and not rawget(self, "_reqs") then
            return group.verbosity(sock, level)
        end
        id = sock
    end
    return finish_line(sock, id, verbosity(rawget(self, "_reqs") or id, level))
end)

_M.flush_all = method(function(_, sock, id, time)
    if not id then
        if sock[GROUP] then
            return group.flush_all(sock, time or nil)
        end
        id = sock
    end
    return finish_line(sock, id, flush_all(id, time or nil))
end)

_M.version = method(function(_, sock, id)
    if not id then
        if sock[GROUP] then
            return group.version(sock)
        end
        id = sock
    end
    return finish_line(sock, id, server_version(id))
end)

_M.quit = method(function(_, sock, id)
    if not id then
        if sock[GROUP] then
            return group.quit(sock)
        end
        id = sock
    end
    return finish_quit(sock, id, quit(id))
end)
