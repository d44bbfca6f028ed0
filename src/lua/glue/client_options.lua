-- Options of `resty.memcached.client.new`. What is wrong with them is raised at the place where
-- `new` was called.
local native, glue = ...

local error, getmetatable, ipairs, next, pairs = error, getmetatable, ipairs, next, pairs
local rawget, tonumber, tostring, type = rawget, tonumber, tostring, type

local MAX_CONNECTIONS = native.max_connections

-- Stack levels of the caller of `new`: from a reader of one option, and from what that calls.
local FROM_READER, FROM_HELPER = 4, 5

local function shown(value)
    if type(value) == "string" then
        if #value > 64 then
            value = value:sub(1, 64) .. "..."
        end
        return '"' .. value:gsub("[%c\127-\255]", "?") .. '"'
    end
    if type(value) == "number" or type(value) == "boolean" then
        return tostring(value)
    end
    return value == nil and "nil" or "a " .. type(value)
end

local function bad_option(name, expected, value)
    error("bad option \"" .. name .. "\": expecting " .. expected .. ", got " .. shown(value), FROM_HELPER)
end

local function check_fields(name, value, known, expected)
    for field in pairs(value) do
        if not known[field] then
            local label = type(field) == "string" and shown(field):sub(2, -2) or shown(field)
            label = name and name .. "." .. label or label
            error("unknown option \"" .. label .. "\" with the value " .. shown(value[field])
                .. ": expecting " .. expected, FROM_HELPER)
        end
    end
end

local function is_integer(value, from, to)
    return type(value) == "number" and value >= from and value <= to and value % 1 == 0
end

local SERVER = '"host:port", "unix:/path" or { host, port }'

-- A name without a port is that of an upstream, which may be unknown yet. What has only digits and
-- dots is an address without its port.
local function is_name(value)
    return native.group_choose and value:find("^[%w_.-]+$") and not value:find("^[%d.]+$")
end

-- Host and port, the path of a socket, or the name of an upstream.
local function server_of(value)
    if type(value) == "string" then
        if value:sub(1, 5):lower() == "unix:" and #value > 5 then
            return value
        end
        local host, port = value:match("^([^:]+):(%d+)$")
        if not host then
            host, port = value:match("^(%[[%x:.]+%]):(%d+)$")
        end
        port = tonumber(port)
        if host and is_integer(port, 1, 65535) then
            return host, port
        end
        if is_name(value) then
            return value
        end
    elseif type(value) == "table" and getmetatable(value) == nil then
        local host, port = value[1], value[2]
        if type(host) == "string" and host ~= "" and is_integer(port, 1, 65535)
            and next(value, next(value, next(value))) == nil then
            return host, port
        end
    end
    bad_option("server", SERVER, value)
end

local MAX_TIMEOUT = 2147483647
local TIMEOUTS = "milliseconds or { connect, send, read }"
local PLACES = { "connect", "send", "read" }

-- Each of the three: by its name or by its place.
local function timeouts_of(value)
    if value == nil then
        return 0, 0, 0
    end
    if is_integer(value, 1, MAX_TIMEOUT) then
        return value, value, value
    end
    if type(value) ~= "table" then
        bad_option("timeouts", TIMEOUTS, value)
    end
    check_fields("timeouts", value,
        { true, true, true, connect = true, send = true, read = true }, TIMEOUTS)
    local found = {}
    for at, name in ipairs(PLACES) do
        local ms = value[name]
        if ms == nil then
            ms = value[at]
        elseif value[at] ~= nil then
            error("bad option \"timeouts\": " .. name .. " is there twice", FROM_READER)
        end
        if ms ~= nil and not is_integer(ms, 1, MAX_TIMEOUT) then
            bad_option("timeouts." .. name, "milliseconds, from 1 to " .. MAX_TIMEOUT, ms)
        end
        found[at] = ms or 0
    end
    return found[1], found[2], found[3]
end

local function is_callable(value)
    local metatable = type(value) == "table" and getmetatable(value)
    return type(value) == "function"
        or type(metatable) == "table" and type(rawget(metatable, "__call")) == "function"
end

local TRANSFORM = "{ escape, unescape }, two functions"

local function transform_of(value)
    if value == nil then
        return nil
    end
    if type(value) ~= "table" then
        bad_option("key_transform", TRANSFORM, value)
    end
    check_fields("key_transform", value, { true, true }, TRANSFORM)
    for at = 1, 2 do
        if not is_callable(value[at]) then
            bad_option("key_transform[" .. at .. "]", "a function", value[at])
        end
    end
    return { value[1], value[2] }
end

local CODEC = '"php" or { encode, decode }, two functions'

-- As `new` of objects takes it.
local function codec_of(value)
    if value == nil then
        return nil
    end
    local codec = glue.codec_of(value)
    if not codec then
        bad_option("codec", CODEC, value)
    end
    return codec
end

local TLS = "true or { server_name, verify, cert, key }"

local function tls_of(value)
    if value == nil or value == false then
        return nil
    end
    if value == true then
        return { verify = true }
    end
    if type(value) ~= "table" then
        bad_option("tls", TLS, value)
    end
    check_fields("tls", value,
        { server_name = true, verify = true, cert = true, key = true },
        "server_name, verify, cert, key")
    local name, verify, cert, key = value.server_name, value.verify, value.cert, value.key
    if name ~= nil and (type(name) ~= "string" or name == "") then
        bad_option("tls.server_name", "a host name", name)
    end
    if verify ~= nil and type(verify) ~= "boolean" then
        bad_option("tls.verify", "a boolean", verify)
    end
    if cert ~= nil and type(cert) ~= "cdata" then
        bad_option("tls.cert", "what ngx.ssl.parse_pem_cert returns", cert)
    end
    if key ~= nil and type(key) ~= "cdata" then
        bad_option("tls.key", "what ngx.ssl.parse_pem_priv_key returns", key)
    end
    if (cert == nil) ~= (key == nil) then
        error("bad option \"tls\": cert and key belong together", FROM_READER)
    end
    return { server_name = name, verify = verify ~= false, cert = cert, key = key }
end

-- As `connect` takes them; nil if there are none.
local function pool_of(options, host, port)
    local pool, size, backlog = options.pool, options.pool_size, options.backlog
    if pool ~= nil and (type(pool) ~= "string" or pool == "") then
        bad_option("pool", "a name", pool)
    end
    if pool and not port and is_name(host) then
        error("bad option \"pool\": it is not for upstreams, got " .. shown(pool), FROM_READER)
    end
    if size ~= nil and not is_integer(size, 1, MAX_TIMEOUT) then
        bad_option("pool_size", "an integer from 1", size)
    end
    if backlog ~= nil and not is_integer(backlog, 0, MAX_TIMEOUT) then
        bad_option("backlog", "an integer from 0", backlog)
    end
    if pool == nil and size == nil and backlog == nil then
        return nil
    end
    return { pool = pool, pool_size = size, backlog = backlog }
end

local NAMES = { "server", "timeouts", "key_transform", "codec", "multiplex", "tls", "pool",
    "pool_size", "backlog", "keepalive_timeout" }
local OPTION_NAMES = table.concat(NAMES, ", ")
local OPTIONS = {}
for _, name in ipairs(NAMES) do
    OPTIONS[name] = true
end

local function check_names(options)
    check_fields(nil, options, OPTIONS, OPTION_NAMES)
end

local function keepalive_of(value)
    if value ~= nil and not is_integer(value, 0, MAX_TIMEOUT) then
        bad_option("keepalive_timeout", "milliseconds, from 0 to " .. MAX_TIMEOUT, value)
    end
    return value
end

-- With TLS, nothing is shared.
local function sharing_of(value, tls)
    if value ~= nil and value ~= false and not is_integer(value, 1, MAX_CONNECTIONS) then
        bad_option("multiplex", "false or an integer from 1 to " .. MAX_CONNECTIONS, value)
    end
    if tls and value then
        error("bad option \"multiplex\": connections with TLS are not shared, got " .. shown(value),
            FROM_READER)
    end
    if tls or value == false then
        return -1
    end
    return value or false
end

-- The fields of a client.
function glue.client_fields(options)
    check_names(options)
    local host, port = server_of(options.server)
    local connect_ms, send_ms, read_ms = timeouts_of(options.timeouts)
    local tls = tls_of(options.tls)
    local pool, multiplex = pool_of(options, host, port), sharing_of(options.multiplex, tls)
    return {
        spares = {},
        spare_count = 0,
        -- whether the last call has used shared connections, and whether calls may
        shares = false,
        may_share = multiplex ~= -1 and not pool,
        host = host,
        port = port,
        connect_options = pool,
        connect_ms = connect_ms,
        send_ms = send_ms,
        read_ms = read_ms,
        multiplex = multiplex,
        idle = keepalive_of(options.keepalive_timeout),
        tls = tls,
        object_options = {
            key_transform = transform_of(options.key_transform),
            codec = codec_of(options.codec),
        },
    }
end

glue.shown = shown
