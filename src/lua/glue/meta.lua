-- Commands that the pure-Lua library does not have: gat, gats, and the meta commands.
local native, glue = ...

local unescape_uri, time = ngx.unescape_uri, ngx.time
local pairs, rawget, type = pairs, rawget, type

local gat, finish_get = native.gat, native.finish_get
local gats, finish_gets = native.gats, native.finish_gets
local gat_many, finish_many = native.gat_many, native.finish_many
local finish_many_raw = native.finish_many_raw
local meta_get, finish_meta_get = native.meta_get, native.finish_meta_get
local meta_set, finish_meta_set = native.meta_set, native.finish_meta_set
local meta_delete, finish_meta_delete = native.meta_delete, native.finish_meta_delete
local meta_arith, finish_meta_arith = native.meta_arith, native.finish_meta_arith
local new_pipeline, commit = native.new_pipeline, glue.commit
local wire_key, wire_keys, unescape_results = glue.wire_key, glue.wire_keys, glue.unescape_results
local MAX_GAT_KEYS = native.max_gat_keys
local AGAIN, ATTEMPTS = native.again, glue.attempts
local elsewhere, group = glue.elsewhere, glue.group

local _M = glue.module

-- memcached has to see the end of a line of `gat` at once, so a long list goes as several commands,
-- which are sent together.
local function add_gats(pipeline, wired, escape, cas, native_keys, exptime)
    local part, size = {}, 0
    for i = 1, #wired do
        local key = wired[i]
        local len = (escape and 3 * #key or #key) + 1
        if size + len > MAX_GAT_KEYS and size > 0 then
            gat_many(pipeline, part, escape, cas, native_keys, exptime)
            part, size = {}, 0
        end
        if key ~= "" then
            part[#part + 1], size = key, size + len
        end
    end
    if size > 0 then
        gat_many(pipeline, part, escape, cas, native_keys, exptime)
    end
end

glue.add_gats = add_gats

local function gat_in_parts(sock, id, wired, escape, cas, unescape, exptime)
    local native_keys = unescape == unescape_uri
    local pipeline = new_pipeline()
    add_gats(pipeline, wired, escape, cas, native_keys, exptime)
    local replies, err = commit(sock, id, pipeline)
    if not replies then
        return nil, err
    end
    local results = {}
    for i = 1, #replies do
        local found, failure = replies[i][1], replies[i][2]
        if not native_keys then
            found, failure = unescape_results(unescape, found, failure)
        end
        if not found then
            return nil, failure
        end
        for key, item in pairs(found) do
            results[key] = item
        end
    end
    return results
end

local function gat_list(self, keys, exptime, cas)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local count = #keys
    if count == 0 then
        return {}, nil
    end
    local wired, escape = wire_keys(self, keys, count)
    local id = sock[ID]
    if not id then
        if sock[GROUP] then
            return group.gat_list(self, sock, wired, escape, cas, exptime)
        end
        id = sock
    end
    local unescape = self.unescape_key
    local size = 0
    for i = 1, count do
        local len = #wired[i]
        size = size + (escape and 3 * len or len) + 1
    end
    if size > MAX_GAT_KEYS then
        return gat_in_parts(sock, id, wired, escape, cas, unescape, exptime)
    end
    if unescape == unescape_uri then
        return finish_many(sock, id, gat_many(id, wired, escape, cas, true, exptime))
    end
    return unescape_results(unescape,
        finish_many_raw(sock, id, gat_many(id, wired, escape, cas, false, exptime)))
end

function _M.gat(self, key, exptime)
    if type(key) == "table" then
        return gat_list(self, key, exptime, false)
    end
    local sock = self.sock
    if not sock then
        return nil, nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[ID]
    if not id then
        return elsewhere(sock, rawget(self, "_reqs"), finish_get, gat, text, escape, exptime)
    end
    return finish_get(sock, id, gat(rawget(self, "_reqs") or id, text, escape, exptime))
end

function _M.gats(self, key, exptime)
    if type(key) == "table" then
        return gat_list(self, key, exptime, true)
    end
    local sock = self.sock
    if not sock then
        return nil, nil, nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[ID]
    if not id then
        return elsewhere(sock, rawget(self, "_reqs"), finish_gets, gats, text, escape, exptime)
    end
    return finish_gets(sock, id, gats(rawget(self, "_reqs") or id, text, escape, exptime))
end

-- The server may have to be asked first what it can do. It is asked once for a connection; others
-- may be opened and lost meanwhile.
local function checked(finish, start, self, key, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local text, escape = wire_key(self, key)
    local id = sock[ID]
    local target = rawget(self, "_reqs") or id
    if not id then
        local result, err, more = elsewhere(sock, target, finish, start, text, escape, ...)
        return result, err, more
    end
    for _ = 1, ATTEMPTS do
        local result, err, more = finish(sock, id, start(target, text, escape, ...))
        if result ~= AGAIN then
            return result, err, more
        end
    end
    return nil, "the version of the server is unknown"
end

function _M.meta_get(self, key, options)
    local item, err = checked(finish_meta_get, meta_get, self, key, options, time())
    return item, err
end

function _M.meta_set(self, key, value, options)
    local result, err = checked(finish_meta_set, meta_set, self, key, value, options, time())
    return result, err
end

function _M.meta_delete(self, key, options)
    local ok, err = checked(finish_meta_delete, meta_delete, self, key, options, time())
    return ok, err
end

function _M.meta_arith(self, key, options)
    return checked(finish_meta_arith, meta_arith, self, key, options, time())
end
