-- The load of scripts/torture, which runs it in nginx: light threads that use
-- memcached in every way, and check what comes back (ops.lua,
-- late.lua, group.lua).

local memcached = require "resty.memcached"
local keys = require "torture.keys"
local ops = require "torture.ops"

local random = math.random
local servers, counts = keys.servers, keys.counts
local mismatch, failed = keys.mismatch, keys.failed

local THREADS = 64
local TIMEOUT = 4000     -- ms; longer than any fault

local _M = {}

local usual = ops.picker {
    own = 120, set = 180, delete = 10, multi = 50, incr = 60, cas = 30, add = 20, pipeline = 30, rare = 1,
    gat = 10, meta_get = 40, meta_set = 40,
}
local late       -- what --late does instead
local group      -- what --group does besides

-- A light thread of the slot was killed, or its request has ended.
local function ended(slot)
    if late then late.ended(slot) end
    if group then group.ended(slot) end
end

-- Threads -------------------------------------------------------------------

-- One object from connect to its end; false if the server could not be reached.
local function session(slot, request)
    local block = group and random(10) <= 7 and group.blocks[random(#group.blocks)]
    local s = random(#servers)
    local server = servers[s]
    local opts
    if _M.multiplex > 0 and random(20) == 1 then opts = { multiplex = false } end
    local m = assert(memcached:new(opts))
    local short = random(100) == 1
    m:set_timeout(short and random(3) or TIMEOUT)
    local ok, err
    if block then
        ok, err = m:connect(block)
    else
        ok, err = m:connect(server.host, server.port)
    end
    if not ok then
        failed(server, "connect", err, short)
        return false
    end
    keys.count("sessions")
    if m:get_reused_times() > 0 then keys.count("reused") end
    m:set_timeout(TIMEOUT)
    for _ = 1, random(20, 300) do
        if request.left <= 0 then break end
        if request.left <= request.exit_at then
            request.exit_at = -1
            keys.count("exited")
            ngx.exit(random(2) == 1 and 200 or 444)
        end
        short = random(late and 4 or block and 2000 or 200) == 1
        if short then m:set_timeout(random(20)) end
        slot.short = short
        local pick = block and group.pick or late and late.pick or usual
        local done
        done, err = pick()(m, slot, block or s, short)
        if err == "timeout" and not block then
            local _, _, again = m:get("after")
            if again ~= "closed" then mismatch("after a timeout:", again) end
        end
        if block and not done then
            -- it stays connected to the others
            ngx.sleep(random(5) / 1000)
            done = 0
        end
        if not done then return true end
        if done < 0 then return true end
        keys.count("operations", done)
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

-- `addresses`: host:port or unix:path, separated by spaces. `is_late`: --late. `is_group`: --group.
function _M.init(addresses, multiplex, is_late, is_group)
    _M.multiplex = multiplex
    if is_late then
        late = require "torture.late"
        -- connections end because somebody's operation was over when a part of it was sent
        keys.lost_is_usual = true
        keys.usual["ERROR"] = true
    end
    for address in addresses:gmatch("%S+") do
        local host, port = address:match("^([^:]+):(%d+)$")
        servers[#servers + 1] = {
            host = host or address, port = tonumber(port), epoch = 0, faulty = false, calm_at = 0,
        }
    end
    if is_group then
        group = require "torture.group"
        group.init()
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
            ended(block[i])
            keys.count("killed")
            threads[i] = ngx.thread.spawn(work, block[i], request)
        end
    end
    ngx.ctx.state = "finished"
    ngx.print("done")
end

-- The request has ended, however that came about.
function _M.log()
    if not ngx.ctx.block then return end
    for _, slot in ipairs(ngx.ctx.block) do ended(slot) end
    keys.give_block(ngx.ctx.block)
    counts[ngx.ctx.state] = counts[ngx.ctx.state] + 1
end

-- server= which one, what= happens to it now: down, up, stop, continue, mark, unmark
function _M.fault()
    local args = ngx.req.get_uri_args()
    local server = servers[tonumber(args.server)]
    keys.fault(server, args.what)
    if args.what:find("mark") then group.mark(server, args.what == "mark") end
    ngx.print("noted")
end

-- Lines of "name value", then mismatches. With gc=1 garbage is collected first.
function _M.status()
    if ngx.var.arg_gc then keys.collect() end
    ngx.say("lua_kb ", math.floor(collectgarbage("count")))
    for name, n in pairs(counts) do ngx.say(name, " ", n) end
    for text, n in pairs(keys.errors) do ngx.say("error ", n, " x ", text) end
    for _, text in ipairs(keys.details) do ngx.say("! ", (text:gsub("%c", "?"))) end
end

return _M
