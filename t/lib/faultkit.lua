-- Runs cases against FaultServer: many at once, each in a slot of the server,
-- and says what was not as it should be.

local ffi = require "ffi"
local kit = require "testkit"
local oracle = require "faultoracle"

ffi.cdef [[ int fk_fcntl(int, int, ...) __asm__("fcntl"); ]]

local _M = {
    port = 0,           -- of FaultServer
    slots = 0,
    shared = false,     -- connections are shared
    stall_ms = 80,      -- timeout where nothing more will come
    long_ms = 20000,    -- where all is well, however slow the machine
}

-- Orders for the server.

local orders = {}
orders.__index = orders

function _M.orders(slot)
    local sock = ngx.socket.tcp()
    sock:settimeout(60000)
    assert(sock:connect("127.0.0.1", _M.port))
    return setmetatable({ sock = sock, slot = slot, host = "127.0.9." .. slot }, orders)
end

function orders:say(what, ...)
    assert(self.sock:send(what .. " " .. self.slot .. table.concat({ ... }) .. "\n"))
    return assert(self.sock:receive())
end

-- `again`: the answer to the same request when it comes once more.
function orders:script(request, steps, again)
    again = again or ""
    local text = {}
    for _, step in ipairs(steps) do
        local what, data = step[1], step[2]
        if what == "send" or what == "drip" then
            text[#text + 1] = what .. " d" .. #data .. "\n" .. data
        else
            text[#text + 1] = what .. " " .. (data or 0) .. "\n"
        end
    end
    text = table.concat(text)
    assert(self.sock:send("script " .. self.slot .. " " .. #request .. " " .. #text .. " " .. #again .. "\n"
        .. request .. text .. again))
    assert(self.sock:receive())
end

-- The server's report as a table: which connection had which request first; in `all`, which had
-- it, as keys.
function orders:report(what)
    local seen = { all = {} }
    for name, number in self:say(what):gmatch("(%w+)=(%d+)") do
        number = tonumber(number)
        seen[name] = seen[name] or number
        seen.all[name] = seen.all[name] or {}
        seen.all[name][number] = true
    end
    return seen
end

function orders:close()
    self.sock:close()
end

-- Results in print, whatever `#` finds in a pipeline's.
function _M.print(values)
    if not (values.pipeline and type(values[1]) == "table") then
        return kit.vals(unpack(values, 1, values.n))
    end
    local out = {}
    for i, slot in ipairs(values[1]) do
        out[i] = "{" .. (table.maxn(slot) > 0 and kit.vals(unpack(slot, 1, table.maxn(slot))) or "") .. "}"
    end
    return "{" .. table.concat(out, ", ") .. "}, " .. kit.vals(unpack(values, 2, values.n))
end

local EVENT = { fin = "closed", rst = "connection reset by peer", hold = "timeout", down = "closed" }

local READS = { get = true, gets = true }

-- Whether all of a command's replies are values.
local function only_reads(cmd)
    if cmd.touches then return false end
    for _, part in ipairs(cmd.parts or {}) do
        if not READS[part.kind] then return false end
    end
    return cmd.parts ~= nil or READS[cmd.kind] or false
end

-- What a case sends, its end, and what that has to give. A case that leaves
-- the reply incomplete ends with a stall. `again`: the connection ends before
-- anything of the reply has come, and what only reads, on a shared one, is
-- asked once more, and gets its intact reply.
local function plan(case, shared)
    local sent, event, ends = "", nil, {}
    local alone = kit.byte_by_byte()
    for _, step in ipairs(case.steps) do
        if step[1] == "send" or step[1] == "drip" then
            local drips = alone or step[1] == "drip"
            for at = #sent + 1, drips and #sent + #step[2] or 0 do ends[#ends + 1] = at end
            sent = sent .. step[2]
        elseif step[1] == "pause" then
            ends[#ends + 1] = #sent
        elseif EVENT[step[1]] then
            event = step[1]
        end
    end
    ends[#ends + 1] = #sent
    local want, at, is_lost, cut, maybe = oracle.expect(case.cmd, sent, EVENT[event or "hold"], ends)
    local steps = case.steps
    if cut and not event then
        event = "hold"
        steps = { unpack(steps) }
        steps[#steps + 1] = { "hold" }
    end
    -- on a busy machine the pieces may come together
    local _, _, together = oracle.expect(case.cmd, sent, EVENT[event or "hold"])
    maybe = maybe or together ~= is_lost
    local again = shared and not case.cmd.own and sent == "" and (event == "fin" or event == "rst")
        and only_reads(case.cmd)
    if again then
        want, _, is_lost = oracle.expect(case.cmd, case.cmd.reply, "closed")
        is_lost = is_lost or false
    end
    return { want = want, rest = sent:sub(at), lost = is_lost, cut = cut, event = event, steps = steps,
             again = again, maybe = shared and maybe, clean = not is_lost and at > #sent and not event }
end

local function new(ms)
    local m = assert(require("resty.memcached"):new())
    m:set_timeout(ms or _M.long_ms)
    return m
end

-- The value of a get of `key`, which says the connection: its number, or what
-- came instead.
local function number_of(key, value, flags, err)
    local number = type(value) == "string" and value:match("^" .. key .. "@(%d+)$")
    if number and flags == "0" and err == nil then return tonumber(number) end
    return nil, kit.vals(value, flags, err)
end

-- Light threads of others on the shared connections: in the same batch before
-- and behind the command, and a turn later.
local function neighbours(host, options)
    local threads, clients = {}, {}
    local self = {}
    for _, key in ipairs{ "nb1", "nb2", "nb3" } do
        clients[key] = new()
        assert(clients[key]:connect(host, _M.port, options))
    end
    function self.spawn(key)
        local m = clients[key]
        threads[key] = ngx.thread.spawn(function()
            local number, other = number_of(key, m:get(key))
            m:set_keepalive(1)
            return number, other
        end)
    end
    -- Of each: key, number of the connection or nil, results that were wrong.
    function self.wait()
        local list = {}
        for key, thread in pairs(threads) do
            local _, number, other = ngx.thread.wait(thread)
            list[#list + 1] = { key, number, other }
        end
        return list
    end
    return self
end

-- Has the second shared connection opened: by a command while another waits.
local function warm_up(host, options)
    local function ask(key)
        local m = new()
        assert(m:connect(host, _M.port, options))
        assert(number_of(key, m:get(key)))
        m:set_keepalive(1)
    end
    local first = ngx.thread.spawn(ask, "probe1")
    ngx.sleep(0)
    ask("probe2")
    ngx.thread.wait(first)
end

-- One case in the slot of `server`. deviates(format, ...) is told what is not
-- as it should be.
local function run(case, server, index, count, deviates)
    local shared = _M.shared
    local p = plan(case, shared)
    local options = { pool = "case" .. index .. case.label }
    local host, port = server.host, _M.port

    server:script(case.cmd.request, p.steps, p.again and case.cmd.reply)
    local m = new()
    assert(m:connect(host, port, options))
    -- asked by itself, so that it is known when the command comes
    if case.cmd.meta then assert(m:version()) end
    if p.cut and p.event == "hold" then m:set_timeout(_M.stall_ms) end

    -- behind a stall, someone only every other time: then nobody waits
    local others = shared and neighbours(host, options)
    if shared then warm_up(host, options) end
    local crowded = shared and (p.event ~= "hold" or index % 2 == 0)
    local result
    if shared then others.spawn("nb1") end
    local victim = ngx.thread.spawn(case.cmd.call, m)
    local function keep(_, ...)
        result = { n = select("#", ...), pipeline = case.cmd.parts and true, ... }
    end
    if crowded then
        others.spawn("nb2")
        ngx.sleep(0)
        others.spawn("nb3")
    end
    keep(ngx.thread.wait(victim))

    local got, want = _M.print(result), _M.print(p.want)
    if p.event == "down" and shared then
        -- the server may have closed with something unread, or when others' commands were sent
        got = got:gsub("connection reset by peer", "closed"):gsub("broken pipe", "closed")
    end
    if got ~= want then deviates("gave %s, not %s", got, want) end
    if case.intact and want ~= case.cmd.want then
        deviates("the rules say %s, the table %s", want, case.cmd.want)
    end

    -- one that is not taken out of the pool again must not stay there
    local idle = shared and case.cmd.own and 100 or 10000
    local early, early_err
    if case.late then early, early_err = m:set_keepalive(idle, 4) end
    local seen = server:report("done")
    if not seen.victim then deviates("the request never came") end
    if seen.surprise then deviates("an unexpected request came") end
    if (seen.again ~= nil) ~= (p.again or false) then
        deviates(p.again and "it was not asked again" or "it was asked again")
    end

    -- into the pool, if and only if that is right
    local kept, kept_err = early, early_err
    if not case.late then kept, kept_err = m:set_keepalive(idle, 4) end
    if case.late and early == 1 then
        count("late")
    elseif shared and not case.cmd.own then
        local right = p.lost and kept == nil and kept_err == "closed"
            or (not p.lost or p.maybe) and kept == 1 or p.maybe and kept_err == "closed"
        if not right then deviates("set_keepalive gave %s", kit.vals(kept, kept_err)) end
    elseif p.clean then
        if kept ~= 1 then deviates("a good connection was not kept: %s", kit.vals(kept, kept_err)) end
    elseif kept ~= nil then
        deviates("a bad connection was kept")
    elseif not p.lost and p.rest ~= "" then
        local _, _, err = m:get("probe0")
        -- an error line is the server's own word, and returned to whoever asks next
        local said = p.rest:match("^([%u_]*ERROR[^\r\n]*)\r?\n") or "bad reply: unsolicited data"
        local right = kept_err == "unread data in buffer" and err == said
            or kept_err == "connection in dubious state" and err == "closed"
        if not right then deviates("kept: %s, then %s", kit.vals(kept_err), kit.vals(err)) end
    elseif kept_err ~= "closed" and not (p.event and not p.lost) then
        deviates("set_keepalive gave %s", kit.vals(kept, kept_err))
    end

    -- the next request
    if p.event == "down" then
        -- a shared connection beside the one that was used may not know of its end yet
        local m2, ok, err = new()
        for _ = 1, shared and 100 or 1 do
            ok, err = m2:connect(host, port, options)
            if not ok then break end
            m2:close()
            ngx.sleep(0.01)
        end
        if ok or err ~= "connection refused" then
            deviates("connect to a server that is away gave %s", kit.vals(ok, err))
        end
        server:say("up")
    end
    local next_one = new()
    local ok, err = next_one:connect(host, port, options)
    if not ok then
        deviates("the next connect gave %s", kit.vals(ok, err))
    else
        local reused = next_one:get_reused_times()
        if not shared and reused ~= (p.clean and 1 or 0) then
            deviates("the next connection was reused %s times", tostring(reused))
        end
        local number, other = number_of("probe", next_one:get("probe"))
        if not number then
            deviates("the next request gave %s", other .. " " .. server:say("seen"))
        elseif not p.clean and number == seen.victim then
            deviates("the bad connection was used again")
        elseif p.clean and not shared and number ~= seen.victim then
            deviates("the good connection was not used again")
        end
    end

    if crowded and p.event == "hold" then server:say("release") end
    if not p.clean then
        -- whoever it was, in the end the connection is closed
        if not (shared and p.event == "hold" and not p.cut) then
            m:close()
            server:report("gone")
        end
    end
    if others then
        local list = others.wait()
        seen = server:report("seen")
        local function check(key, number, other)
            -- one that the server has not seen is lost with the connection
            local ahead = key == "nb1"
            local beside = ahead or seen[key] and seen[key] ~= seen.victim
            count(ahead and "ahead" or beside and "beside" or "behind")
            -- a server that goes down takes all with it
            if p.event == "down" and not number then return end
            if beside or p.clean then
                if not number then deviates("%s, which has no part in it, gave %s", key, other) end
                return
            end
            if number and not seen.all[key][number] then deviates("%s has another's value", key) end
            if key == "nb2" and not p.maybe then
                local want2 = _M.behind(p, seen.victim)
                local got2 = number and "right" or other
                if got2 ~= want2 then deviates("%s behind it gave %s, not %s", key, got2, want2) end
            end
        end
        for _, one in ipairs(list) do check(unpack(one, 1, 3)) end
    end
    next_one:set_keepalive(1)
    if not shared then next_one:close() end
end

-- What a get of nb2 gives whose request was sent right behind a faulty one. It is asked again if
-- the connection ends before anything of its reply has come: nothing that comes when nobody knows
-- where it belongs is of it.
function _M.behind(p, number)
    if p.lost or p.again or p.event and p.rest == "" then return "right" end
    local event = p.event and (p.event == "hold" and "closed" or EVENT[p.event])
    local value = "nb2@" .. number
    local stream = p.rest
    if not p.event then
        stream = stream .. "VALUE nb2 0 " .. #value .. "\r\n" .. value .. "\r\nEND\r\n"
    end
    local cmd = { kind = "get", keys = { nb2 = "nb2" }, count = 1 }
    local want = oracle.expect(cmd, stream, event or "closed")
    return want[1] == value and "right" or kit.vals(unpack(want, 1, want.n))
end

-- Open file descriptors.
local function descriptors()
    local n = 0
    for fd = 0, 4095 do
        if ffi.C.fk_fcntl(fd, 1) >= 0 then n = n + 1 end
    end
    return n
end

-- The worker's memory that is in use, in MiB.
function _M.memory()
    local file = assert(io.open("/proc/self/status"))
    local kib = file:read("*a"):match("VmRSS:%s*(%d+)")
    file:close()
    return tonumber(kib) / 1024
end

-- The first deviations are said, then only that there are more.
local function teller()
    local told = 0
    return function(label, text, ...)
        told = told + 1
        if told <= 20 then ngx.say(label, ": ", text:format(...)) end
    end
end

local function goes_down(cases)
    local steps = cases[1].steps
    return steps[#steps][1] == "down"
end

-- Runs cases, as many at once as there are slots. Says how many there were, how
-- many went wrong, and what; and whether the worker is as it was before.
function _M.run(name, cases)
    local tell = teller()
    local before, used = descriptors(), _M.memory()
    local counts = { ahead = 0, beside = 0, behind = 0, late = 0 }
    local function count(what) counts[what] = counts[what] + 1 end
    local threads, next_case, finished, failed = {}, 0, 0, 0
    for slot = 1, math.min(_M.slots, #cases) do
        threads[slot] = ngx.thread.spawn(function()
            local server = _M.orders(slot)
            while cases[next_case + 1] do
                next_case = next_case + 1
                local index, case, good = next_case, cases[next_case], true
                local function deviates(...)
                    good = false
                    tell(case.label, ...)
                end
                local ok, err = pcall(run, case, server, index, count, deviates)
                if not ok then
                    deviates("raised %s", tostring(err))
                    server = _M.orders(slot)
                end
                finished = finished + 1
                if not good then failed = failed + 1 end
            end
            server:close()
        end)
    end
    for _, thread in ipairs(threads) do ngx.thread.wait(thread) end

    -- the neighbours have to be where they are meant to be
    -- a server that goes down may not have heard those on its other connection
    local few = #cases / (goes_down(cases) and 20 or 5)
    if _M.shared and #cases > 200 and (counts.beside < few or counts.behind < few) then
        tell(name, "neighbours: %d on other connections, %d behind", counts.beside, counts.behind)
    end
    if cases[1].late and counts.late < few then tell(name, "only %d were idle", counts.late) end
    if not kit.eventually(function() return descriptors() <= before end, 30) then
        tell(name, "%d open files, %d before", descriptors(), before)
    end
    if _M.memory() > used + 64 then tell(name, "%d MiB in use, %d before", _M.memory(), used) end
    ngx.say(name, ": ", finished, " cases, ", failed, " failed")
end

return _M
