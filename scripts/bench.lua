-- The Lua side of scripts/bench: the same functions over each library.
--
-- Called with the directory of the pure-Lua library ("" for Debian's package) and
-- memcached's port. Returns a table: CONTESTANT -> WORKLOAD -> function, which is what
-- a location runs, and `value`, KEY -> the value that key has. `module` and `shared` are
-- the same library; what differs are the directives of their locations.
--
-- The value of a key is the key, padded with dots to the size of its kind, so that
-- an answer shows whose value it is. Keys have only what key_transform leaves as it is,
-- because the others know no transform. bench-data.pl knows the same rules.

local reference_dir, port = ...

local memcached_of = { module = require "resty.memcached" }
memcached_of.shared = memcached_of.module
if reference_dir == "" then
    memcached_of.lua = require "nginx.memcached"
else
    -- By its file: under its own name `require` finds the native module.
    memcached_of.lua = assert(loadfile(reference_dir .. "/resty/memcached.lua"))()
end
assert(memcached_of.lua ~= memcached_of.module, "both libraries are the same one")

-- Bytes of a value and how many keys there are, for each kind of key.
local kinds = {
    small = { 32, 1000 },
    medium = { 100, 1000 },
    huge = { 1048576, 4 },
    ["stored-small"] = { 32, 1000 },
    ["stored-large"] = { 102400, 16 },
}

local keys, value_of = {}, {}
for kind, spec in pairs(kinds) do
    keys[kind] = {}
    for i = 1, spec[2] do
        local key = kind .. "-" .. i
        keys[kind][i] = key
        if kind:find("stored", 1, true) then
            value_of[key] = key .. ("."):rep(spec[1] - #key)
        end
    end
end

-- A multi-get asks for 100 keys that follow each other.
local batches = {}
for i = 1, 10 do
    batches[i] = {}
    for j = 1, 100 do
        batches[i][j] = keys.medium[(i - 1) * 100 + j]
    end
end

local function give_up(what, why)
    ngx.log(ngx.ERR, "bench: ", what, ": ", why)
    return ngx.exit(500)
end

local function open(memcached)
    local memc, err = memcached:new()
    if not memc then
        return give_up("new", err)
    end
    memc:set_timeout(10000)
    local ok
    ok, err = memc:connect("127.0.0.1", port)
    if not ok then
        return give_up("connect", err)
    end
    return memc
end

local function close(memc)
    local ok, err = memc:set_keepalive(60000, 1024)
    if not ok then
        return give_up("set_keepalive", err)
    end
end

-- `report` gets each key and value. It is nil in what is measured, which looks at no
-- more of an answer than shows that there was one: the same little for both libraries.
local function workloads(memcached, report)
    local small, multi, huge, stored_small, stored_large = 0, 0, 0, 0, 0

    local function get(memc, key, size)
        local value, flags, err = memc:get(key)
        if not value or #value ~= size then
            return give_up("get " .. key, err or "wrong value")
        end
        if report then
            report(key, value)
        end
        return value
    end

    local function set(key)
        local memc = open(memcached)
        local value = value_of[key]
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

    local function get_huge()
        local memc = open(memcached)
        huge = huge % 4 + 1
        local value = get(memc, keys.huge[huge], 1048576)
        close(memc)
        return value
    end

    return {
        get = function()
            local memc = open(memcached)
            small = small % 1000 + 1
            local value = get(memc, keys.small[small], 32)
            close(memc)
            ngx.print(value)
        end,

        hot = function()
            local memc = open(memcached)
            local value = get(memc, keys.small[1], 32)
            close(memc)
            ngx.print(value)
        end,

        ["get-10"] = function()
            local memc = open(memcached)
            local value
            for _ = 1, 10 do
                small = small % 1000 + 1
                value = get(memc, keys.small[small], 32)
            end
            close(memc)
            ngx.print(value)
        end,

        ["multi-get"] = function()
            local memc = open(memcached)
            multi = multi % 10 + 1
            local batch = batches[multi]
            local found, err = memc:get(batch)
            if not found then
                return give_up("multi-get", err)
            end
            close(memc)
            for i = report and 1 or 100, 100 do
                local entry = found[batch[i]]
                if not entry or #entry[1] ~= 100 then
                    return give_up("multi-get", "no or wrong " .. batch[i])
                end
                if report then
                    report(batch[i], entry[1])
                end
            end
            ngx.print("100 values")
        end,

        set = function()
            stored_small = stored_small % 1000 + 1
            set(keys["stored-small"][stored_small])
        end,

        ["set-100k"] = function()
            stored_large = stored_large % 16 + 1
            set(keys["stored-large"][stored_large])
        end,

        ["get-1m"] = function()
            ngx.print(#get_huge(), " bytes")
        end,

        ["pass-1m"] = function()
            ngx.print(get_huge())
        end,
    }
end

local bench = {
    waited = "small-1" .. ("."):rep(25),
    value = function(key)
        return value_of[key]
    end,
}
for name, memcached in pairs(memcached_of) do
    bench[name] = workloads(memcached)
    bench[name .. "_check"] = workloads(memcached, function(key, value)
        ngx.print(key, "=", value, "\n")
    end)
end
return bench
