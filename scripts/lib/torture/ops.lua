-- The operations of scripts/torture and scripts/soak: each asks memcached for something and
-- checks what comes back (keys.lua).

local keys = require "torture.keys"

local random = math.random
local servers, usual, KEYS = keys.servers, keys.usual, keys.KEYS
local mismatch, failed, make, check = keys.mismatch, keys.failed, keys.make, keys.check
local begin_write, end_write = keys.begin_write, keys.end_write
local look, must_be_there = keys.look, keys.must_be_there
local any_key, any_len = keys.any_key, keys.any_len

-- Operations: each returns how many it did; nil and the error when it failed; -1
-- when the object was closed. A call has the object, the slot, the index of the
-- server, and what else keys.failed wants to know (whether the timeout is short).

local ops = {}

function ops.get(m, _, s, short)
    local seen = look(any_key(s))
    local value, flags, err = m:get(seen.key.name)
    if err then return failed(servers[s], "get", err, short) end
    check("get", seen, value, flags)
    return 1
end

function ops.own(m, slot, s, short)
    local seen = look(slot[s][random(KEYS)])
    local value, flags, err = m:get(seen.key.name)
    if err then return failed(servers[s], "get", err, short) end
    check("own get", seen, value, flags)
    return 1
end

function ops.set(m, slot, s, short)
    local key, generation, epoch = begin_write(slot, s, random(KEYS))
    local ok, err = m:set(key.name, make(key.name, generation, any_len()), keys.ttl, generation % 1000)
    if ok ~= 1 then return failed(servers[s], "set", err, short) end
    end_write(key, generation, epoch)
    return 1
end

function ops.delete(m, slot, s, short)
    local key, generation, epoch = begin_write(slot, s, random(KEYS))
    local there = must_be_there(look(key))
    key.deleted = generation
    local ok, err = m:delete(key.name)
    if ok ~= 1 and err ~= "NOT_FOUND" then return failed(servers[s], "delete", err, short) end
    if ok ~= 1 and there and servers[s].epoch == epoch then
        mismatch("delete", key.name, "not found")
    end
    end_write(key, generation, epoch)
    return 1
end

function ops.multi(m, _, s, short)
    local list, names, asked = {}, {}, {}
    for i = 1, random(2, 20) do
        local key = any_key(s)
        names[i] = key.name
        list[i] = look(key)
        asked[key.name] = true
    end
    local found, err = m:get(names)
    if not found then return failed(servers[s], "multi-get", err, short) end
    for i = 1, #list do
        local got = found[names[i]]
        -- of a group, what a server that failed has is missing
        if got or not err then check("multi-get", list[i], got and got[1], got and got[2]) end
    end
    for name in pairs(found) do
        if not asked[name] then mismatch("multi-get got", name, "unasked") end
    end
    if err then return failed(servers[s], "multi-get", err, short) end
    return 1
end

function ops.incr(m, slot, s, short)
    local key, generation, epoch = begin_write(slot, s, 0)
    local there = key.done > 0 and key.epoch == epoch and keys.lasts(key)
    local got, err, stored_at
    if there then
        local delta = random(3)
        got, err = m:incr(key.name, delta)
        if not got and err == "NOT_FOUND" and servers[s].epoch ~= epoch then
            key.busy, key.epoch = false, -1
            return 1
        end
        if not got and usual[err] then return failed(servers[s], "incr", err, short) end
        if tonumber(got) ~= key.number + delta then
            return mismatch("incr", key.name, "gave", got, err, "after", key.number, "by", delta)
        end
        key.number = key.number + delta
        stored_at = key.stored_at
    else
        got, err = m:set(key.name, key.number, keys.ttl)
        if got ~= 1 then return failed(servers[s], "set", err, short) end
    end
    end_write(key, generation, epoch, stored_at)
    return 1
end

function ops.cas(m, slot, s, short)
    local i = random(KEYS)
    local key = slot[s][i]
    local seen = look(key)
    local value, flags, unique, err = m:gets(key.name)
    if err then return failed(servers[s], "gets", err, short) end
    check("gets", seen, value, flags)
    if key.busy or not value then return 1 end
    local generation, epoch
    key, generation, epoch = begin_write(slot, s, i)
    local ok
    ok, err = m:cas(key.name, make(key.name, generation, any_len()), unique, keys.ttl, generation % 1000)
    if ok ~= 1 then
        if err == "NOT_FOUND" and (seen.now % 2 == 1 or servers[s].epoch ~= seen.now) then
            key.busy, key.epoch = false, -1
            return 2
        end
        if err == "EXISTS" and servers[s].epoch == seen.now then
            mismatch("cas", key.name, "changed between gets and cas")
        end
        if err == "EXISTS" then return 2 end
        return failed(servers[s], "cas", err, short)
    end
    end_write(key, generation, epoch)
    return 2
end

function ops.add(m, slot, s, short)
    local i = random(KEYS)
    local seen = look(slot[s][i])
    if seen.key.busy or not must_be_there(seen) then return ops.set(m, slot, s, short) end
    local key, generation, epoch = begin_write(slot, s, i)
    local ok, err = m:add(key.name, make(key.name, generation, 5), keys.ttl, generation % 1000)
    if err == "NOT_STORED" then
        key.busy = false
        return 1
    end
    if ok ~= 1 then return failed(servers[s], "add", err, short) end
    if servers[s].epoch == epoch then mismatch("add", key.name, "stored over", seen.done) end
    end_write(key, generation, epoch)
    return 1
end

function ops.pipeline(m, slot, s, short)
    m:init_pipeline()
    local todo, writing = {}, {}
    for n = 1, random(2, 12) do
        local i = random(KEYS)
        if random(2) == 1 and not writing[i] then
            writing[i] = true
            local key, generation, epoch = begin_write(slot, s, i)
            m:set(key.name, make(key.name, generation, any_len()), keys.ttl, generation % 1000)
            todo[n] = { key = key, generation = generation, epoch = epoch }
        else
            local seen = look(any_key(s))
            m:get(seen.key.name)
            todo[n] = seen
        end
    end
    local results, err = m:commit_pipeline()
    if not results then return failed(servers[s], "pipeline", err, short) end
    for n, did in ipairs(todo) do
        local got = results[n] or {}
        local failure = got[1] == nil and (got[3] or got[2])
        if failure then return failed(servers[s], "pipeline", failure, short) end
        if did.generation then
            if got[1] ~= 1 then mismatch("pipeline: set", did.key.name, "gave", got[1]) end
            end_write(did.key, did.generation, did.epoch)
        else
            check("pipeline: get", did, got[1], got[2])
        end
    end
    if #results ~= #todo then mismatch("pipeline:", #results, "results for", #todo) end
    return #todo
end

function ops.gat(m, _, s, short)
    local seen = look(any_key(s))
    local value, flags, err = m:gat(seen.key.name, keys.ttl)
    if err then return failed(servers[s], "gat", err, short) end
    check("gat", seen, value, flags)
    return 1
end

function ops.meta_get(m, _, s, short)
    local seen = look(any_key(s))
    local item, err = m:meta_get(seen.key.name, { flags = true, size = true })
    if err then return failed(servers[s], "meta_get", err, short) end
    check("meta_get", seen, item and item.value, item and item.flags)
    if item and item.size ~= #item.value then mismatch("meta_get", seen.key.name, "size", item.size) end
    return 1
end

function ops.meta_set(m, slot, s, short)
    local key, generation, epoch = begin_write(slot, s, random(KEYS))
    local ok, err = m:meta_set(key.name, make(key.name, generation, any_len()),
        { ttl = keys.ttl, flags = generation % 1000 })
    if not ok then return failed(servers[s], "meta_set", err, short) end
    end_write(key, generation, epoch)
    return 1
end

function ops.rare(m, _, s, short)
    local which = random(5)
    local got, err
    if which == 1 then
        got, err = m:version()
        if got and not got:match("^%d+%.%d+%.%d+") then mismatch("version", got) end
    elseif which == 2 then
        got, err = m:stats()
        if got and not got[1]:match("^STAT pid ") then mismatch("stats", got[1]) end
    elseif which == 3 then
        got, err = m.sock:send("version\r\n")
        if got then got, err = m.sock:receive() end
        if err == "timeout" then m:close() end     -- as methods do by themselves
        if got and not got:match("^VERSION %d") then mismatch("raw version", got) end
    elseif which == 4 then
        got, err = m:stats("settings")
        if got and not got[1]:match("^STAT maxbytes ") then mismatch("stats settings", got[1]) end
    else
        got, err = m:quit()
        if got and got ~= 1 then mismatch("quit", got) end
        if got then return -1 end
    end
    if not got then return failed(servers[s], "rare " .. which, err, short) end
    return 1
end

-- A function that picks an operation: `weights` has their shares of 1000, the rest is for single
-- gets.
local function picker(weights)
    local by_number = {}
    for name, weight in pairs(weights) do
        for _ = 1, weight do by_number[#by_number + 1] = ops[name] end
    end
    while #by_number < 1000 do by_number[#by_number + 1] = ops.get end
    return function() return by_number[random(1000)] end
end

return { ops = ops, picker = picker }
