-- The module `resty.memcached.client`: clients that a worker's requests use at once. A client keeps
-- objects that nobody uses. Each call takes one, connects it, calls its method, and gives the
-- connection and the object back. An object whose coroutine never returns is collected, and its
-- connection with it.
local native, glue = ...

local error, getmetatable, pairs, pcall = error, getmetatable, pairs, pcall
local rawequal, rawget, setmetatable, type = rawequal, rawget, setmetatable, type

local connect, finish_connect = native.connect, native.finish_connect
local TO_GROUP, LEAVE_GROUP = native.to_group, native.leave_group
local set_keepalive, close = native.set_keepalive, native.close
local attach, release = native.attach, native.release
local drop_session = native.drop_session
local connect_sock, group = glue.connect_sock, glue.group
local handshake, new = glue.handshake, glue.new
local client_fields, shown = glue.client_fields, glue.shown

local objects, coded = glue.module, glue.coded

-- How many objects that nobody uses a client keeps.
local MAX_SPARES = 1024

-- How many servers of a group an object remembers, of which some may be gone.
local MAX_MEMBERS = 256

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

-- With a codec.
local CodedClient, CodedPipeline = {}, {}
local coded_client_metatable = { __index = CodedClient, __metatable = "resty.memcached.client" }
local coded_pipeline_metatable = { __index = CodedPipeline }

local module = {}

function module.new(options, second)
    if rawequal(options, module) then
        options = second
    end
    if type(options) ~= "table" then
        error("bad options argument (table expected, got " .. type(options) .. ")", 2)
    end
    local client = client_fields(options)
    return setmetatable(client, client.object_options.codec and coded_client_metatable
        or client_metatable)
end

-- calls

local function new_memc(self)
    local memc = new(nil, self.object_options)
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

-- A group stays with its object, and so do the hidden objects for its servers.
local function connect_group(self, sock, number)
    local of = sock[GROUP]
    if of and of.number == number and of.known < MAX_MEMBERS then
        return 1
    end
    local ok, err = group.connect(sock, number, self.connect_options)
    if ok then
        local tls = self.tls
        of = group.keep(sock)
        of.handshake = tls and { false, tls.server_name, tls.verify }
    end
    return ok, err
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
        if ok == TO_GROUP then
            return connect_group(self, sock, err)
        elseif ok == LEAVE_GROUP then
            ok, err = connect_sock(sock, self.host, self.port, options)
        else
            -- the connection is not established yet, or there is an error
            ok, err = finish_connect(sock, sock, ok, err)
            if not ok and err == "missing the port number" then
                err = 'there is no upstream ' .. shown(self.host)
            end
        end
    end
    if ok and self.tls then
        return encrypt(self, sock)
    end
    return ok, err
end

-- The connections of members that were used. What a call that has raised an error has left behind
-- is closed.
local function give_members(self, of, ok)
    local may_share, idle = self.may_share, self.idle
    for i = 1, of.count do
        local member = of[i]
        local id = member[ID]
        if not ok then
            member.reader, member.opening, member.shares = nil, nil, false
            drop_session(id)
        else
            local shares = may_share and release(id, idle)
            if not shares and set_keepalive(member, id, idle) ~= 1 then
                close(member)
            end
            member.shares = shares
        end
    end
    of.count = 0
end

-- The connection is kept if an object's could be, and is closed otherwise.
local function give(self, memc, ok, ...)
    local sock = memc.sock
    local id = sock[ID]
    if id then
        local shares = self.may_share and release(id, self.idle)
        if not shares and set_keepalive(sock, id, self.idle) ~= 1 then
            close(sock)
        end
        self.shares = shares
    elseif sock[GROUP] then
        self.shares = false
        give_members(self, sock[GROUP], ok)
    end
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
        local fine, ok, err = pcall(connect_memc, self, sock)
        if not fine then
            -- this is no place to wait in
            if not sock[GROUP] then
                close(sock)
            end
            memc:cancel_pipeline()
            put_back(self, memc)
            error(ok, 0)
        end
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

function Client.pipeline(self, fill)
    local memc = take(self)
    if type(fill) ~= "function" then
        put_back(self, memc)
        error("bad fill argument (function expected, got " .. type(fill) .. ")", 2)
    end
    memc:init_pipeline()
    local pipeline = setmetatable({ memc }, memc.codec and coded_pipeline_metatable
        or pipeline_metatable)
    local ok, err = pcall(fill, pipeline)
    pipeline[1] = nil
    if not ok then
        memc:cancel_pipeline()
        put_back(self, memc)
        error(err, 0)
    end
    return call(self, memc, memc.commit_pipeline)
end

for name, method in pairs(objects) do
    if type(method) == "function" and not NOT_FORWARDED[name] then
        Client[name], Pipeline[name] = forward(method), queue(name, method)
        CodedClient[name], CodedPipeline[name] = forward(coded[name]), queue(name, coded[name])
    end
end
CodedClient.pipeline = Client.pipeline

glue.client = module
