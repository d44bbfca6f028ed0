-- The module `resty.memcached.client`: clients that a worker's requests use at
-- once. A client keeps objects that nobody uses. Each call takes one, connects
-- it, calls its method, and gives the connection and the object back. An object
-- whose coroutine never returns is collected, and its connection with it.
local native, glue = ...

local error, getmetatable, ipairs, next, pairs = error, getmetatable, ipairs, next, pairs
local pcall, rawequal, rawget, setmetatable = pcall, rawequal, rawget, setmetatable
local tonumber, tostring, type = tonumber, tostring, type

local connect, finish_connect = native.connect, native.finish_connect
local set_keepalive, close = native.set_keepalive, native.close
local attach, release = native.attach, native.release
local MAX_CONNECTIONS = native.max_connections
local handshake, new_object = glue.handshake, glue.new_object

local objects = glue.module

-- How many objects that nobody uses a client keeps.
local MAX_SPARES = 1024

-- Methods of objects that a client has no use for.
local NOT_FORWARDED = {
    new = true, connect = true, sslhandshake = true, set_timeout = true, set_timeouts = true,
    set_keepalive = true, get_reused_times = true, close = true, quit = true,
    init_pipeline = true, commit_pipeline = true, cancel_pipeline = true,
}

-- Methods of objects that do not wait for an open pipeline.
local AT_ONCE = { gets = true, cas = true, flush_all = true, version = true }

local Client, Pipeline = {}, {}
local client_metatable = { __index = Client, __metatable = "resty.memcached.client" }
local pipeline_metatable = { __index = Pipeline }

-- options of `new`

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

-- Raises an error at the place where `new` was called, as all below.
local function bad_option(name, expected, value)
    error('bad option "' .. name .. '": expecting ' .. expected .. ", got " .. shown(value), 4)
end

local function check_fields(name, value, known, expected)
    for field in pairs(value) do
        if not known[field] then
            error('unknown option ' .. (name and '"' .. name .. '.' or '"')
                .. (type(field) == "string" and shown(field):sub(2, -1) or shown(field) .. '"')
                .. " with the value " .. shown(value[field]) .. ": expecting " .. expected, 4)
        end
    end
end

local function is_integer(value, from, to)
    return type(value) == "number" and value >= from and value <= to and value % 1 == 0
end

local SERVER = '"host:port", "unix:/path" or { host, port }'

-- Host and port, or the path of a socket.
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
            error('bad option "timeouts": ' .. name .. " is there twice", 3)
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

local function multiplex_of(value)
    if value == nil or value == false or is_integer(value, 1, MAX_CONNECTIONS) then
        return value
    end
    bad_option("multiplex", "false or an integer from 1 to " .. MAX_CONNECTIONS, value)
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
        error('bad option "tls": cert and key belong together', 3)
    end
    return { server_name = name, verify = verify ~= false, cert = cert, key = key }
end

-- As `connect` takes them; nil if there are none.
local function pool_of(options)
    local pool, size, backlog = options.pool, options.pool_size, options.backlog
    if pool ~= nil and (type(pool) ~= "string" or pool == "") then
        bad_option("pool", "a name", pool)
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

local OPTIONS = {
    server = true, timeouts = true, key_transform = true, multiplex = true, tls = true,
    pool = true, pool_size = true, backlog = true, keepalive_timeout = true,
}
local OPTION_NAMES = "server, timeouts, key_transform, multiplex, tls, pool, pool_size, backlog, "
    .. "keepalive_timeout"

local module = {}

function module.new(options, second)
    if rawequal(options, module) then
        options = second
    end
    if type(options) ~= "table" then
        error("bad argument #1 to 'new' (table expected, got " .. type(options) .. ")", 2)
    end
    check_fields(nil, options, OPTIONS, OPTION_NAMES)
    local host, port = server_of(options.server)
    local connect_ms, send_ms, read_ms = timeouts_of(options.timeouts)
    local idle = options.keepalive_timeout
    if idle ~= nil and not is_integer(idle, 0, MAX_TIMEOUT) then
        bad_option("keepalive_timeout", "milliseconds, from 0 to " .. MAX_TIMEOUT, idle)
    end
    local tls, multiplex = tls_of(options.tls), multiplex_of(options.multiplex)
    if tls then
        if multiplex then
            error('bad option "multiplex": connections with TLS are not shared, got '
                .. shown(multiplex), 2)
        end
        multiplex = false
    end
    local pool = pool_of(options)
    return setmetatable({
        spares = {},
        spare_count = 0,
        -- whether the last call has used shared connections, and whether calls may
        shares = false,
        may_share = multiplex ~= false and not pool,
        host = host,
        port = port,
        connect_options = pool,
        connect_ms = connect_ms,
        send_ms = send_ms,
        read_ms = read_ms,
        multiplex = multiplex == false and -1 or multiplex or false,
        idle = idle,
        tls = tls,
        object_options = { key_transform = transform_of(options.key_transform) },
    }, client_metatable)
end

-- calls

local function new_memc(self)
    local memc = new_object(self.object_options)
    local sock = memc.sock
    sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT] = self.connect_ms, self.send_ms
    sock[READ_TIMEOUT], sock[MULTIPLEX] = self.read_ms, self.multiplex
    sock[HOST], sock[PORT] = self.host, self.port
    if self.tls then
        sock[CERTIFICATE], sock[PRIVATE_KEY] = self.tls.cert, self.tls.key
    end
    return memc
end

local function no_client(self)
    if type(self) == "table" and (rawequal(self, Client) or getmetatable(self) == nil) then
        error("not a client: make one with require(\"resty.memcached.client\").new{ ... }", 4)
    end
    error("not a client, but " .. shown(self)
        .. ": call methods with a colon, as in client:get(key)", 4)
end

local function take(self)
    local count = type(self) == "table" and rawget(self, "spare_count") or no_client(self)
    if count == 0 then
        return new_memc(self)
    end
    local spares = self.spares
    local memc = spares[count]
    spares[count] = false
    self.spare_count = count - 1
    return memc
end

local function put_back(self, memc)
    local count = self.spare_count + 1
    if count <= MAX_SPARES then
        self.spares[count] = memc
        self.spare_count = count
    end
end

local function encrypt(self, sock)
    local tls = self.tls
    local ok, err = handshake(sock, false, tls.server_name, tls.verify)
    if not ok then
        close(sock)
        return nil, err
    end
    return 1
end

local function connect_memc(self, sock)
    local ok, err
    local options = self.connect_options
    if options then
        local port = self.port
        if port then
            ok, err = connect(sock, sock[ID], self.connect_ms, self.send_ms, self.read_ms,
                self.multiplex, self.host, port, options)
        else
            ok, err = connect(sock, sock[ID], self.connect_ms, self.send_ms, self.read_ms,
                self.multiplex, self.host, options)
        end
    else
        ok, err = connect(sock, sock[ID], self.connect_ms, self.send_ms, self.read_ms,
            self.multiplex, self.host, self.port)
    end
    if ok ~= 1 then
        -- it is not there yet, or there is an error
        ok, err = finish_connect(sock, sock, ok, err)
    end
    if ok and self.tls then
        return encrypt(self, sock)
    end
    return ok, err
end

-- The connection is kept if an object's could be, and is closed otherwise.
local function give(self, memc, ok, ...)
    local sock = memc.sock
    local id = sock[ID]
    local shares = self.may_share and release(id, self.idle)
    if not shares and set_keepalive(sock, id, self.idle) ~= 1 then
        close(sock)
    end
    self.shares = shares
    put_back(self, memc)
    if not ok then
        error((...), 0)
    end
    return ...
end

local function give_unconnected(self, memc, id, ok, ...)
    memc.sock[ID] = id
    put_back(self, memc)
    if not ok then
        error((...), 0)
    end
    return ...
end

-- The method returns the error in the place where it has its own.
local function fail(self, memc, err, method, a, b, c, d, e)
    local sock = memc.sock
    local id = sock[ID]
    sock[ID] = err
    return give_unconnected(self, memc, id, pcall(method, memc, a, b, c, d, e))
end

local function call(self, memc, method, a, b, c, d, e)
    local sock = memc.sock
    if not (self.shares and attach(sock[ID], self.multiplex, self.host, self.port)) then
        local ok, err = connect_memc(self, sock)
        if not ok then
            return fail(self, memc, err, method, a, b, c, d, e)
        end
    end
    return give(self, memc, pcall(method, memc, a, b, c, d, e))
end

local function forward(method)
    return function(self, a, b, c, d, e)
        return call(self, take(self), method, a, b, c, d, e)
    end
end

-- pipelines

local function at_once(name)
    error(name .. " cannot be in a pipeline: call it on the client", 3)
end

local function queue(name, method)
    return function(self, key, b, c, d, e)
        local memc = type(self) == "table" and rawget(self, 1)
        if not memc then
            error("the pipeline has ended, or " .. name
                .. " was not called with a colon, as in p:get(key)", 2)
        end
        if AT_ONCE[name] then
            at_once(name)
        end
        if type(key) == "table" then
            at_once(name .. " with a list of keys")
        end
        return method(memc, key, b, c, d, e)
    end
end

local commit_pipeline = objects.commit_pipeline

function Client.pipeline(self, fill)
    local memc = take(self)
    if type(fill) ~= "function" then
        put_back(self, memc)
        error("bad argument #1 to 'pipeline' (function expected, got " .. type(fill) .. ")", 2)
    end
    memc:init_pipeline()
    local pipeline = setmetatable({ memc }, pipeline_metatable)
    local ok, err = pcall(fill, pipeline)
    pipeline[1] = nil
    if not ok then
        memc:cancel_pipeline()
        put_back(self, memc)
        error(err, 0)
    end
    return call(self, memc, commit_pipeline)
end

for name, method in pairs(objects) do
    if type(method) == "function" and not NOT_FORWARDED[name] then
        Client[name] = forward(method)
        Pipeline[name] = queue(name, method)
    end
end

glue.client = module
