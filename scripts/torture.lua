-- The load of scripts/torture, which runs it in nginx: light threads that use
-- memcached in every way, and check what comes back (torture_keys.lua).

local memcached = require "resty.memcached"
local keys = require "torture_keys"

local random = math.random
local servers, counts, usual, KEYS = keys.servers, keys.counts, keys.usual, keys.KEYS
local mismatch, failed, make, check = keys.mismatch, keys.failed, keys.make, keys.check
local begin_write, end_write = keys.begin_write, keys.end_write
local look, must_be_there = keys.look, keys.must_be_there
local any_key, any_len = keys.any_key, keys.any_len

local THREADS = 64
local TIMEOUT = 4000     -- ms; longer than any fault

local _M = {}

-- Operations: each returns how many it did; nil and the error when it failed; -1
-- when the object was closed. A call has the object, the slot, the index of the
-- server, and whether the timeout is short.

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
    local ok, err = m:set(key.name, make(key.name, generation, any_len()), 0, generation % 1000)
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
        check("multi-get", list[i], got and got[1], got and got[2])
    end
    for name in pairs(found) do
        if not asked[name] then mismatch("multi-get got", name, "unasked") end
    end
    return 1
end

function ops.incr(m, slot, s, short)
    local key, generation, epoch = begin_write(slot, s, 0)
    local there = key.done > 0 and key.epoch == epoch
    local got, err
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
    else
        got, err = m:set(key.name, key.number)
        if got ~= 1 then return failed(servers[s], "set", err, short) end
    end
    end_write(key, generation, epoch)
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
    ok, err = m:cas(key.name, make(key.name, generation, any_len()), unique, 0, generation % 1000)
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
    local ok, err = m:add(key.name, make(key.name, generation, 5), 0, generation % 1000)
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
            m:set(key.name, make(key.name, generation, any_len()), 0, generation % 1000)
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

-- Out of 1000; the rest is for single gets.
local weights = {
    own = 120, set = 180, delete = 10, multi = 50, incr = 60, cas = 30, add = 20, pipeline = 30, rare = 1,
}
local by_number = {}
for name, weight in pairs(weights) do
    for _ = 1, weight do by_number[#by_number + 1] = ops[name] end
end
while #by_number < 1000 do by_number[#by_number + 1] = ops.get end

-- Threads -------------------------------------------------------------------

-- One object from connect to its end; false if the server could not be reached.
local function session(slot, request)
    local s = random(#servers)
    local server = servers[s]
    local opts
    if _M.multiplex > 0 and random(20) == 1 then opts = { multiplex = false } end
    local m = assert(memcached:new(opts))
    local short = random(100) == 1
    m:set_timeout(short and random(3) or TIMEOUT)
    local ok, err = m:connect(server.host, server.port)
    if not ok then
        failed(server, "connect", err, short)
        return false
    end
    counts.sessions = counts.sessions + 1
    if m:get_reused_times() > 0 then counts.reused = counts.reused + 1 end
    m:set_timeout(TIMEOUT)
    for _ = 1, random(20, 300) do
        if request.left <= 0 then break end
        if request.left <= request.exit_at then
            request.exit_at = -1
            counts.exited = counts.exited + 1
            ngx.exit(random(2) == 1 and 200 or 444)
        end
        short = random(200) == 1
        if short then m:set_timeout(random(20)) end
        local done, err = by_number[random(1000)](m, slot, s, short)
        if err == "timeout" then
            local _, _, again = m:get("after")
            if again ~= "closed" then mismatch("after a timeout:", again) end
        end
        if not done then return true end
        if done < 0 then return true end
        counts.operations = counts.operations + done
        request.left = request.left - done
        if short then m:set_timeout(TIMEOUT) end
    end
    local how = random(20)
    if how <= 16 then
        m:set_keepalive()
    elseif how <= 19 then
        m:close()
    end
    return true
end

local function work(slot, request)
    local ok, err = pcall(function()
        while request.left > 0 do
            if not session(slot, request) then ngx.sleep(random(20) / 1000) end
        end
    end)
    if not ok then mismatch("a Lua error:", err) end
    request.alive = request.alive - 1
end

-- What nginx calls -----------------------------------------------------------

-- `addresses`: host:port or unix:path, separated by spaces.
function _M.init(addresses, multiplex)
    _M.multiplex = multiplex
    for address in addresses:gmatch("%S+") do
        local host, port = address:match("^([^:]+):(%d+)$")
        servers[#servers + 1] = {
            host = host or address, port = tonumber(port), epoch = 0, faulty = false, calm_at = 0,
        }
    end
end

-- One request: operations= of this many, kills= that many per second, exit_at=
-- how many are left when ngx.exit is called (-1: it is not), seed=
function _M.run()
    local args = ngx.req.get_uri_args()
    math.randomseed(tonumber(args.seed))
    local request = {
        left = tonumber(args.operations), exit_at = tonumber(args.exit_at), alive = THREADS,
    }
    local block = keys.take_block(THREADS)
    ngx.ctx.block = block
    ngx.ctx.state = "aborted"
    local threads = {}
    for i = 1, THREADS do threads[i] = ngx.thread.spawn(work, block[i], request) end
    local pause = 1 / tonumber(args.kills)
    while request.alive > 0 do
        ngx.sleep(0.001 + pause * 2 * random())
        local i = random(THREADS)
        if request.left > 0 and ngx.thread.kill(threads[i]) then
            counts.killed = counts.killed + 1
            threads[i] = ngx.thread.spawn(work, block[i], request)
        end
    end
    ngx.ctx.state = "finished"
    ngx.print("done")
end

-- The request has ended, however that came about.
function _M.log()
    if not ngx.ctx.block then return end
    keys.give_block(ngx.ctx.block)
    counts[ngx.ctx.state] = counts[ngx.ctx.state] + 1
end

-- server= which one, what= happens to it now: down, up, stop, continue
function _M.fault()
    local args = ngx.req.get_uri_args()
    local server = servers[tonumber(args.server)]
    keys.fault(server, args.what)
    ngx.print("noted")
end

-- Lines of "name value", then mismatches. With gc=1 garbage is collected first.
function _M.status()
    if ngx.var.arg_gc then
        for _ = 1, 4 do collectgarbage() end
    end
    ngx.say("lua_kb ", math.floor(collectgarbage("count")))
    for name, n in pairs(counts) do ngx.say(name, " ", n) end
    for text, n in pairs(keys.errors) do ngx.say("error ", n, " x ", text) end
    for _, text in ipairs(keys.details) do ngx.say("! ", (text:gsub("%c", "?"))) end
end

return _M
