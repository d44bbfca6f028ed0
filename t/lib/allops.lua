-- Operations of every kind, by name: { what is prepared, what is done with it }.

local big = ("0123456789abcdef"):rep(8192)  -- 128 KiB
local many = {}
for i = 1, 60 do many[i] = "many" .. i end

local function fresh()
    return kit.new()
end

local function connected()
    local memc = kit.connect()
    memc:set("small", "value")
    return memc
end

local function with_values()
    local memc = connected()
    for _, key in ipairs(many) do memc:set(key, key) end
    memc:set("big", big)
    memc:set("number", 7)
    return memc
end

local function new_pipeline()
    local memc = connected()
    memc:init_pipeline()
    return memc
end

local function meta()
    local memc = connected()
    memc:meta_get("small")
    return memc
end

local function coded()
    return kit.connect(nil, nil, { codec = "php" })
end

local function found(item, err)
    return item ~= nil, err
end

local function count(found, err)
    if not found then return nil, err end
    local n = 0
    for _ in pairs(found) do n = n + 1 end
    return n, err
end

local function whole(value, flags, err)
    return value == big, flags, err
end

local function connect(memc, ...)
    memc:set_timeout(1000)
    local ok, err = memc:connect(...)
    if not ok then return nil, err end
    return ok, memc:set("x", 1)
end

-- A name that nginx has not looked up before.
local names_used = 0
local function new_name()
    names_used = names_used + 1
    return "n" .. names_used .. ".one.test"
end

local function handshake(memc, ...)
    local session, err = memc:sslhandshake(...)
    if not session then return nil, err end
    return session ~= nil, memc:set("x", 1)
end

local function tls_connected()
    return kit.connect(tls_port)
end

local function tls_shaken()
    local memc = tls_connected()
    assert(memc:sslhandshake())
    assert(memc:set("big", big))
    return memc
end

local function new_client()
    return require("resty.memcached.client").new{ server = { "127.0.0.1", kit.port }, timeouts = 5000 }
end

local function used_client()
    connected():close()
    local client = new_client()
    assert(client:get("small") == "value")
    return client
end

local old_session

local _M = {
    client_new = { connected, function() return new_client() ~= nil end },
    client_first = { function() connected():close() return new_client() end,
                     function(client) return client:get("small") end },
    client_get = { used_client, function(client) return client:get("small") end },
    client_set = { used_client, function(client) return client:set("other", 1) end },
    client_pipeline = {
        used_client,
        function(client)
            local replies, err = client:pipeline(function(p) for i = 1, 6 do p:get("p" .. i) end end)
            return replies and #replies, err
        end,
    },
    new = { function() end, function() return (require "resty.memcached":new()) ~= nil end },
    connect = { fresh, function(memc) return connect(memc, "127.0.0.1", kit.port) end },
    connect_pool = {
        fresh,
        function(memc)
            return connect(memc, "127.0.0.1", kit.port,
                { pool = "p" .. ngx.now() .. math.random(), pool_size = 2, backlog = 2 })
        end,
    },
    connect_unix = { fresh, function(memc) return connect(memc, unix) end },
    connect_refused = { fresh, function(memc) return connect(memc, "127.0.0.1", refused) end },
    connect_name = { fresh, function(memc) return connect(memc, "no.such.host", kit.port) end },
    connect_long_name = {
        fresh,
        function(memc)
            local ok, err = connect(memc, ("a"):rep(1e5), kit.port)
            return ok, err and err:gsub("aa+", "long")
        end,
    },
    name_new = { fresh, function(memc) return connect(memc, new_name(), kit.port) end },
    name_known = { fresh, function(memc) return connect(memc, "known.one.test", kit.port) end },
    name_alias = { fresh, function(memc) return connect(memc, "alias.test", kit.port) end },
    name_pool = {
        fresh,
        function(memc)
            return connect(memc, new_name(), kit.port, { pool = "names", pool_size = 2, backlog = 2 })
        end,
    },
    tls = { tls_connected, function(memc) return handshake(memc) end },
    tls_verified = { tls_connected, function(memc) return handshake(memc, nil, "memcached.test", true) end },
    tls_mismatch = { tls_connected, function(memc) return handshake(memc, nil, "other.test", true) end },
    tls_resumed = {
        function()
            old_session = tls_shaken():sslhandshake()
            return tls_connected()
        end,
        function(memc) return handshake(memc, old_session) end,
    },
    tls_kept = {
        tls_shaken,
        function(memc)
            local ok, err = memc:set_keepalive()
            if not ok then return nil, err end
            ok, err = memc:connect("127.0.0.1", tls_port)
            if not ok then return nil, err end
            return handshake(memc)
        end,
    },
    tls_get_big = { tls_shaken, function(memc) return whole(memc:get("big")) end },
    tls_set_big = { tls_shaken, function(memc) return memc:set("k", big) end },
    keepalive = { connected, function(memc) return memc:set_keepalive() end },
    keepalive_connect = {
        connected,
        function(memc)
            local ok, err = memc:set_keepalive()
            if not ok then return nil, err end
            return connect(memc, "127.0.0.1", kit.port)
        end,
    },
    close = { connected, function(memc) return memc:close() end },
    get = { connected, function(memc) return memc:get("small") end },
    get_missing = { connected, function(memc) return memc:get("none") end },
    get_big = { with_values, function(memc) return whole(memc:get("big")) end },
    gets = {
        connected,
        function(memc)
            local value, _, _, err = memc:gets("small")
            return value, err
        end,
    },
    get_many = { with_values, function(memc) return count(memc:get(many)) end },
    get_transformed = {
        with_values,
        function(memc)
            memc.unescape_key = function(key) return key end
            return count(memc:get(many))
        end,
    },
    gat = { connected, function(memc) return memc:gat("small", 0) end },
    gat_many = { with_values, function(memc) return count(memc:gat(many, 0)) end },
    -- the first of a connection asks for the version
    meta_first = { connected, function(memc) return found(memc:meta_get("small")) end },
    meta_get = { meta, function(memc) return found(memc:meta_get("small", { ttl = true })) end },
    meta_get_big = {
        with_values,
        function(memc)
            local item, err = memc:meta_get("big")
            return item and item.value == big, err
        end,
    },
    meta_set = { meta, function(memc) return found(memc:meta_set("k", "v")) end },
    meta_set_big = { meta, function(memc) return found(memc:meta_set("k", big)) end },
    meta_refused = { meta, function(memc) return memc:meta_set("k", "v", { nonsense = true }) end },
    meta_delete = { meta, function(memc) return memc:meta_delete("none") end },
    meta_arith = { meta, function(memc) return memc:meta_arith("number", { vivify = 0, delta = 0 }) end },
    meta_pipeline = {
        new_pipeline,
        function(memc)
            for i = 1, 20 do
                memc:meta_set("p" .. i, "v")
                memc:meta_get("p" .. i)
            end
            local replies, err = memc:commit_pipeline()
            for _, reply in ipairs(replies or {}) do err = err or reply[2] end
            return replies and #replies, err
        end,
    },
    codec = {
        coded,
        function(memc)
            local ok, err = memc:set("t", { 1, big })
            if not ok then return nil, err end
            local value, _, err = memc:get("t")
            return value and value[2] == big, err
        end,
    },
    set = { connected, function(memc) return memc:set("k", "v") end },
    set_big = { connected, function(memc) return memc:set("k", big) end },
    set_refused = { connected, function(memc) return memc:set(("k"):rep(300), "v") end },
    incr = { with_values, function(memc) return memc:incr("number", 0) end },
    delete = { connected, function(memc) return memc:delete("none") end },
    touch = { connected, function(memc) return memc:touch("small", 0) end },
    stats = {
        connected,
        function(memc)
            local lines, err = memc:stats()
            return type(lines), err
        end,
    },
    version = { connected, function(memc) return memc:version() end },
    quit = { connected, function(memc) return memc:quit() end },
    pipeline = {
        new_pipeline,
        function(memc)
            local failed
            for i = 1, 40 do
                local _, err = memc:set("p" .. i, big:sub(1, 1000))
                failed = failed or err
                memc:get("p" .. i)
            end
            local replies, err = memc:commit_pipeline()
            for _, reply in ipairs(replies or {}) do err = err or reply[3] or not reply[1] and reply[2] end
            return replies and #replies, failed or err
        end,
    },
    raw = {
        connected,
        function(memc)
            local sent, err = memc.sock:send({ "get ", { "small" }, "\r\n" })
            if not sent then return nil, err end
            return memc.sock:receive("*l"), memc.sock:receive(5), memc.sock:receive(), memc.sock:receive()
        end,
    },
    raw_big = {
        with_values,
        function(memc)
            local sent, err = memc.sock:send("get big\r\n")
            if not sent then return nil, err end
            local line, err = memc.sock:receive()
            if not line then return nil, err end
            local value, err = memc.sock:receive(#big)
            return true, value == big, err
        end,
    },
    threads = {
        connected,
        function()
            local function run()
                local memc = kit.new()
                local ok, err = memc:connect("127.0.0.1", kit.port)
                if not ok then return nil, err end
                return memc:get("small")
            end
            local threads = {}
            for i = 1, 20 do threads[i] = ngx.thread.spawn(pcall, run) end
            local wrong
            for i = 1, 20 do
                local _, ok, value, err, more = ngx.thread.wait(threads[i])
                if not ok or value ~= "value" then wrong = tostring(more or err or value) end
            end
            return wrong
        end,
    },
}

local queues = 0

-- a write that nobody waits for, to a queue that has no connection yet
_M.queue = {
    connected,
    function()
        queues = queues + 1
        local queue = require "resty.memcached.queue"
        -- the port within the host is the one that counts
        local q, err = queue.new("127.0.0.1:" .. kit.port, queues, { timeout = 300 })
        if not q then return nil, err end
        for i = 1, 3 do
            local ok, err = q:set("queued" .. i, big)
            if not ok then return nil, err end
        end
        if not kit.eventually(function() return q:pending() == 0 end, 10) then return nil, "pending" end
        local counts = q:counts()
        if counts.taken ~= counts.done + counts.lost + counts.dropped + counts.refused then
            return nil, "not balanced"
        end
        if counts.done < 3 then return nil, "closed" end
        return counts.done
    end,
}

-- all kinds, for a worker that did nothing before
_M.first = {
    fresh,
    function(memc)
        local ok, err = connect(memc, "127.0.0.1", kit.port)
        if not ok then return nil, err end
        local ok, err = memc:set("big", big)
        if not ok then return nil, err end
        local value, _, err = memc:get("big")
        if err then return nil, err end
        local found, err = memc:get(many)
        if not found then return nil, err end
        memc:init_pipeline()
        for i = 1, 6 do memc:get("p" .. i) end
        local replies, err = memc:commit_pipeline()
        if not replies then return nil, err end
        local ok, err = memc:set_keepalive()
        return #replies, err
    end,
}

local names = {}
for name in pairs(_M) do if name ~= "first" then names[#names + 1] = name end end
table.sort(names)
_M.names = names
return _M
