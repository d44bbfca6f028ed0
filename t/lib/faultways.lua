-- Runs cases of faultcases through clients, and through objects of groups of one
-- server: what a call gives has to be what it gives on a connection of its own,
-- and the next call has to be right.

local client = require "resty.memcached.client"
local faults = require "faultkit"
local kit = require "testkit"
local oracle = require "faultoracle"

local _M = {}

local EVENT = { fin = "closed", rst = "connection reset by peer", hold = "timeout" }

-- Where nothing more will come, and where all is well; in ms.
local STALL, LONG = 150, 20000

-- What has the methods of commands.
local function client_of(server, shared, ms)
    return client.new{ server = server, multiplex = shared, timeouts = ms }
end

local function object_of(server, shared, ms)
    local m = require("resty.memcached"):new{ multiplex = shared }
    m:set_timeout(ms)
    assert(m:connect(server))
    return m
end

_M.ways = {
    ["private client"] = { false, client_of },
    ["shared client"] = { 2, client_of },
    ["private client of a group"] = { false, client_of, group = true },
    ["shared client of a group"] = { 2, client_of, group = true },
    ["private object of a group"] = { false, object_of, group = true },
    ["shared object of a group"] = { 2, object_of, group = true },
}

-- Whether a case makes sense in this way.
local function fits(cmd, way)
    if cmd.parts then return way[2] == object_of end
    -- what a server says of its version would hold for further cases
    if cmd.kind == "version" then return false end
    -- a group asks all its servers for these, in its own words
    if way.group and (cmd.kind == "stats" or cmd.kind == "ok") then return false end
    -- these open a connection of their own
    return not (cmd.own and way[1])
end

-- The upstream block of a slot's server has the name "slot" and its number.
local function run(case, server, slot, way, deviates)
    local cmd, shared, make = case.cmd, way[1], way[2]
    local name = way.group and "slot" .. slot or server.host .. ":" .. faults.port
    local sent, event = "", nil
    for _, step in ipairs(case.steps) do
        sent = sent .. (step[1] == "send" and step[2] or "")
        event = EVENT[step[1]] and step[1] or event
    end
    local ends
    for at = 1, kit.byte_by_byte() and #sent or 0 do
        ends = ends or {}
        ends[at] = at
    end
    local want, _, _, cut = oracle.expect(cmd, sent, EVENT[event or "hold"], ends)
    local steps = case.steps
    if cut and not event then
        event, steps = "hold", { unpack(steps) }
        steps[#steps + 1] = { "hold" }
    end
    -- what only reads is asked once more if nothing of its reply has come
    local again = shared and sent == "" and (event == "fin" or event == "rst")
        and (cmd.kind == "get" or cmd.kind == "gets") and not cmd.touches
    if again then want = oracle.expect(cmd, cmd.reply, "closed") end
    server:script(cmd.request, steps, again and cmd.reply or nil)

    local held = cut and event == "hold"
    local m = make(name, shared, held and STALL or LONG)
    local function pack(...) return { n = select("#", ...), pipeline = cmd.parts and true, ... } end
    local result = pack(cmd.call(m))
    -- a group says which server had the error
    if way.group and cmd.list then result.n = math.min(result.n, want.n) end
    local got, wanted = faults.print(result), faults.print(want)
    if got ~= wanted then deviates("gave %s, not %s", got, wanted) end
    if held then server:say("release") end
    if m.set_keepalive then m:set_keepalive(1000, 4) end

    -- an idle connection may have ended, or have more than was asked for
    m = make(name, shared, LONG)
    local value, err
    for _ = 1, 3 do
        value, _, err = m:get("probe")
        if value then break end
    end
    if not value or not value:find("^probe@%d+$") then deviates("then gave %s", kit.vals(value, err)) end
    if m.close then m:close() end
end

-- Says how many cases there were in each way, and what was not as it should be.
function _M.run(label, cases)
    local names = {}
    for name in pairs(_M.ways) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        local way, threads, at, ran, failed = _M.ways[name], {}, 0, 0, 0
        for slot = 1, faults.slots do
            threads[slot] = ngx.thread.spawn(function()
                local server = faults.orders(slot)
                while cases[at + 1] do
                    at = at + 1
                    local case = cases[at]
                    if fits(case.cmd, way) then
                        ran = ran + 1
                        local good = true
                        run(case, server, slot, way, function(text, ...)
                            if failed < 20 then ngx.say(case.label, ", ", name, ": ", text:format(...)) end
                            good = false
                        end)
                        if not good then failed = failed + 1 end
                    end
                end
                server:close()
            end)
        end
        for _, thread in ipairs(threads) do
            local ok, err = ngx.thread.wait(thread)
            if not ok then ngx.say("raised ", tostring(err)) end
        end
        ngx.say(label, ", ", name, ": ", ran, " cases, ", failed, " failed")
    end
end

return _M
