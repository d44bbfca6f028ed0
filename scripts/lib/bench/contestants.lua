-- The Lua side of scripts/bench: the same functions over each library.
--
-- Called with a contestant (module, shared, client, lua, or one about five servers: see sharded.lua and
-- `open`), the directory of the pure-Lua library ("" for Debian's package), memcached's port, those of the
-- five, and twemproxy's. Returns the functions that locations run: WORKLOAD -> what
-- is measured, and WORKLOAD/check -> the same, answering each key and value. `module` and `shared`
-- are the same library; what differs are the directives of their locations. `client` does the same as
-- `shared` with a client (resty.memcached.client). Each contestant has its
-- own copy of this file, so that LuaJIT compiles none for the habits of another.
--
-- A key is KIND-NUMBER, its value the number and a space again and again, cut to the size of its
-- kind, so that an answer shows whose value it is, and that no two have the same hash in LuaJIT
-- because of a common filler. Keys have only what key_transform leaves as it is, because the others
-- know no transform. data.pl knows the same rules.
--
-- A string that Lua still holds, or has not collected yet, is not made again when it is received
-- again: LuaJIT finds it among the interned ones. Therefore nothing here keeps a key or a value that
-- is asked for, and there are many more of them than any of the libraries leaves uncollected.

local contestant, reference_dir, port, group_ports, proxy_port = ...

local memcached
if contestant ~= "lua" and contestant ~= "sharded" then
    memcached = require "resty.memcached"
elseif reference_dir == "" then
    memcached = require "nginx.memcached"
else
    -- By its file: under its own name `require` finds the native module.
    memcached = assert(loadfile(reference_dir .. "/resty/memcached.lua"))()
end
assert(contestant ~= "lua" or memcached ~= require "resty.memcached", "both libraries are the same one")
if contestant == "sharded" then
    memcached = require "sharded"(memcached, group_ports)
elseif contestant == "twemproxy" then
    port = proxy_port
end
local in_group = contestant == "group" or contestant == "group-shared"

-- Bytes of a value and how many keys there are, for each kind of key.
local kinds = {
    small = { size = 32, count = 100000 },
    medium = { size = 100, count = 200000 },
    huge = { size = 1048576, count = 300 },
    ["stored-small"] = { size = 32, count = 10000 },
    ["stored-large"] = { size = 102400, count = 64 },
}

-- The value that the key with the number `n` has.
local function value_of(kind, n)
    local size, text = kinds[kind].size, 100000 + n .. " "
    return text:rep(math.ceil(size / #text)):sub(1, size)
end

-- What is stored is there before: whoever stores a value has one.
local values = {}
for _, kind in ipairs { "stored-small", "stored-large" } do
    values[kind] = {}
    for n = 1, kinds[kind].count do
        values[kind][n] = value_of(kind, n)
    end
end

local function give_up(what, why)
    ngx.log(ngx.ERR, "bench: ", what, ": ", why)
    return ngx.exit(500)
end

local client = contestant == "client" and require "resty.memcached.client".new{
    server = { "127.0.0.1", port }, timeouts = 10000, keepalive_timeout = 60000 }

-- Connected to whoever has the key with the number `n`.
local function open(n)
    if client then
        return client
    end
    local memc, err = memcached:new()
    if not memc then
        return give_up("new", err)
    end
    memc:set_timeout(10000)
    local ok
    if in_group then
        ok, err = memc:connect("bench_group")
    elseif contestant == "by-hand" then
        -- all five have all keys
        ok, err = memc:connect("127.0.0.1", group_ports[n % 5 + 1])
    else
        ok, err = memc:connect("127.0.0.1", port)
    end
    if not ok then
        return give_up("connect", err)
    end
    return memc
end

local function close(memc)
    if client then
        return
    end
    local ok, err = memc:set_keepalive(60000, 1024)
    if not ok then
        return give_up("set_keepalive", err)
    end
end

-- `report` gets each key and value. It is nil in what is measured, which looks at no
-- more of an answer than shows that there was one: the same little for both libraries.
local function workloads(report)
    local last = { small = 0, medium = 0, huge = 0, ["stored-small"] = 0, ["stored-large"] = 0 }

    -- The next key of its kind, and its number.
    local function next_key(kind)
        local n = last[kind] % kinds[kind].count + 1
        last[kind] = n
        return kind .. "-" .. 100000 + n, n
    end

    local function get(memc, kind, key)
        local value, _, err = memc:get(key)
        if not value or #value ~= kinds[kind].size then
            return give_up("get " .. key, err or "no or wrong value")
        end
        if report then
            report(key, value)
        end
        return value
    end

    local function get_next(kind)
        local key, n = next_key(kind)
        local memc = open(n)
        local value = get(memc, kind, key)
        close(memc)
        return value
    end

    local function set(kind)
        local memc = open()
        local key, n = next_key(kind)
        local value = values[kind][n]
        local ok, err = memc:set(key, value)
        if not ok then
            return give_up("set " .. key, err)
        end
        close(memc)
        if report then
            report(key, value)
        end
        ngx.print("STORED\r\n")
    end

    return {
        get = function()
            ngx.print(get_next("small"))
        end,

        -- The same key always.
        hot = function()
            local memc = open()
            local value = get(memc, "small", "small-100001")
            close(memc)
            ngx.print(value)
        end,

        ["get-10"] = function()
            local memc = open()
            local value
            for _ = 1, 10 do
                value = get(memc, "small", (next_key("small")))
            end
            close(memc)
            ngx.print(value)
        end,

        ["multi-get"] = function()
            local memc = open()
            local keys = {}
            for i = 1, 100 do
                keys[i] = next_key("medium")
            end
            local found, err = memc:get(keys)
            if not found then
                return give_up("multi-get", err)
            end
            close(memc)
            for i = report and 1 or 100, 100 do
                local entry = found[keys[i]]
                if not entry or #entry[1] ~= kinds.medium.size then
                    return give_up("multi-get", "no or wrong " .. keys[i])
                end
                if report then
                    report(keys[i], entry[1])
                end
            end
            ngx.print("100 values")
        end,

        set = function()
            set("stored-small")
        end,

        ["set-100k"] = function()
            set("stored-large")
        end,

        ["get-1m"] = function()
            ngx.print(#get_next("huge"), " bytes")
        end,

        ["pass-1m"] = function()
            ngx.print(get_next("huge"))
        end,
    }
end

local functions = workloads()
-- Of whom these are asked, `open` decides.
local function named_for_groups(all)
    all["group-get"], all["group-multi-get"] = all.get, all["multi-get"]
    return all
end
named_for_groups(functions)
local checks = named_for_groups(workloads(function(key, value)
    ngx.print(key, "=", value, "\n")
end))
for workload, check in pairs(checks) do
    functions[workload .. "/check"] = check
end
-- For the locations of the others.
functions.value_of = value_of
return functions
