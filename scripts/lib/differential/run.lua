-- Runs sequences of calls on this module and on the pure-Lua library, each with
-- servers of its own, and compares all there is to see. Runs in nginx, started
-- by scripts/differential.

local calls = require "differential.calls"
local values = require "differential.values"
local known = require "differential.known"
local same = require "differential.same"
local servers = require "differential.servers"

local pack = function(...) return { n = select("#", ...), ... } end

local _M = {}

-- The sides: { name, module, port, unix, objects, ... }; set by init().
local reference, ours
local sides

function _M.init(opts)
    local library = assert(loadfile(opts.library))()
    if not library.init_pipeline then
        library = require("differential.legacy").complete(library)
    end
    reference = { name = "reference", module = library, port = opts.ports[1], unix = opts.sockets[1] }
    ours = { name = "module", module = require "resty.memcached", port = opts.ports[2], unix = opts.sockets[2] }
    if opts.plant then assert(require("differential.plants")[opts.plant], "no such plant")(ours.module) end
    sides = { reference, ours }
    values.shared = opts.shared
    known.init { shared = opts.shared, legacy = library.legacy, library = library }
end

local keyed = {}
for name in ("get gets set add replace append prepend cas delete incr decr touch"):gmatch("%S+") do
    keyed[name] = true
end

local function begin(side, run)
    side.objects, side.all, side.uniques, side.run = {}, {}, {}, run
    side.pipes = setmetatable({}, { __mode = "k" })
end

local function object(side, target)
    if target == "module" then return side.module end
    local obj = side.objects[target]
    if not obj then
        obj = side.module.new(side.module)
        side.objects[target], side.all[#side.all + 1] = obj, obj
    end
    return obj
end

-- Nothing here has to be waited for; seconds.
local SLOW = 1

local wrong_selves = { nil, 5, "x", true }

local function arguments(side, call)
    local args = { n = call.n }
    for i = 1, call.n do args[i] = values.resolve(call[i], side) end
    return args
end

-- What a call returns: { n, whether it raised nothing, results or message }.
local function invoke(side, call, args)
    local method, self = call.method, nil
    if call.target == "wrong" then
        self = wrong_selves[call.n + 1]
    elseif method ~= "new" then
        self = object(side, call.target)
    end
    local f = side.module[method]
    local of_sock = method:match("^sock:(.*)$")
    if of_sock then
        self = self and type(self) == "table" and self.sock
        if not self then return pack(true, "no sock") end
        f = self[of_sock]
    end
    ngx.update_time()
    local began = ngx.now()
    local results = pack(pcall(f, self, unpack(args, 1, args.n)))
    ngx.update_time()
    if ngx.now() - began > SLOW then
        ngx.print(("slow %.1f s in sequence %d, %s: %s\n"):format(ngx.now() - began, side.number, side.name,
            calls.show_call(call)))
    end
    if method == "new" and results[1] and type(results[2]) == "table" then
        side.objects[call.target] = results[2]
        side.all[#side.all + 1] = results[2]
        results[2] = "an object"
    end
    if method == "gets" and results.n == 4 and type(call[1]) == "string" then
        side.uniques[call[1]] = results[4]
    end
    return results
end

local stores = { set = true, add = true, replace = true, append = true, prepend = true, cas = true }

-- The reference's answer to a call over a connection that is not used again.
local function aside(call, args, obj)
    local other = reference.module.new(nil, { key_transform = {
        function(key) return (obj.escape_key(key)) end, obj.unescape_key,
    } })
    other:set_timeout(5000)
    if obj.where == reference.unix then
        assert(other:connect(reference.unix, { pool = "aside unix" }))
    else
        assert(other:connect("127.0.0.1", reference.port, { pool = "aside" }))
    end
    local copy = { n = args.n, unpack(args, 1, args.n) }
    -- nothing that the server could take for a command with effects
    if stores[call.method] and type(copy[2]) == "string" then copy[2] = "x" end
    local results = pack(pcall(reference.module[call.method], other, unpack(copy, 1, copy.n)))
    other:close()
    return results
end

local pipelined = {}
for name in ("get set add replace append prepend delete incr decr touch stats verbosity"):gmatch("%S+") do
    pipelined[name] = true
end

local function slot_of(results)
    local slot = {}
    for i = 2, results.n do slot[i - 1] = results[i] end
    return slot
end

-- Commits the reference's pipeline; the commands that it was spared are put where
-- they belong.
local function commit(pipe, call, obj)
    local real = 0
    for _, slot in ipairs(pipe) do
        if not slot then real = real + 1 end
    end
    if real == #pipe then return invoke(reference, call, { n = 0 }) end
    local results
    if real > 0 then
        results = invoke(reference, call, { n = 0 })
        if type(results[2]) ~= "table" then return results end
    else
        reference.module.cancel_pipeline(obj)
        if obj.after_quit or obj:get_reused_times() == nil then return pack(true, nil, "closed") end
        results = pack(true, {}, nil)
    end
    local merged, at = {}, 0
    for i, slot in ipairs(pipe) do
        if not slot then
            at = at + 1
            slot = results[2][at]
        end
        merged[i] = slot
    end
    results[2] = merged
    return results
end

-- The reference's turn. Returns results, the entry of the table of differences
-- if it was spared the call itself, and the call as it was before.
local function ask_reference(call)
    local args = arguments(reference, call)
    local obj = call.target ~= "wrong" and object(reference, call.target)
    local method = call.method
    if not obj or call.target == "module" or method == "new" then
        return invoke(reference, call, args), nil, known.look(call, args, nil, {})
    end

    local pipe = reference.pipes[obj]
    local open = rawget(obj, "_reqs") ~= nil
    local queues = open and pipelined[method] and not (method == "get" and type(call[1]) == "table")
    local connected = obj:get_reused_times() ~= nil
    local state = { open = connected, queues = queues, connected = queues or connected and not obj.after_quit }
    local before = known.look(call, args, obj, state)
    if method == "cancel_pipeline" then reference.pipes[obj] = nil end
    if method == "commit_pipeline" and pipe then
        reference.pipes[obj] = nil
        return commit(pipe, call, obj), nil, before
    end

    local entry, results, adapting = known.refused(call, args, obj, state)
    if entry then
        if entry.server then servers.ask(reference, reference.port, entry.server(args), 1) end
        results = results or aside(call, args, obj)
        if queues then
            pipe = pipe or {}
            reference.pipes[obj] = pipe
            if results[1] then
                pipe[#pipe + 1] = slot_of(results)
                results = pack(true, 1)
            end
        end
        return results, entry, before
    end
    -- The reference loses its connection if an argument of set_keepalive is wrong,
    -- and when that is collected, the worker crashes at the end of the request.
    local sock = rawget(obj, "sock")
    local connection = method:find("keepalive", 1, true) and sock[1]
    local restore = {}
    for _, one in ipairs(adapting) do
        entry = one
        restore[#restore + 1] = one.adapt(args, obj)
    end
    results = invoke(reference, call, args)
    for _, undo in ipairs(restore) do undo() end
    if connection and not results[1] then sock[1] = connection end
    if method == "quit" and results[2] == 1 then
        ngx.sleep(0.005)    -- for the server to close the connection
        obj.after_quit = true
    elseif method == "connect" and results[2] == 1 or method == "close" or method == "sock:close" then
        obj.after_quit = nil
        if method == "connect" then obj.where = args[1] end
    end
    if queues and results[1] and results[2] == 1 then
        pipe = pipe or {}
        reference.pipes[obj] = pipe
        pipe[#pipe + 1] = false
    end
    return results, entry, before
end

local function describe(results)
    local parts = {}
    for i = 2, results.n do parts[i - 1] = values.show(results[i]) end
    return (results[1] and "" or "raises ") .. table.concat(parts, ", ")
end

local function empty_pools(side)
    local function empty(...)
        for _ = 1, 20 do
            local m = side.module.new(nil, side == ours and { multiplex = false } or nil)
            if not m:connect(...) then return end
            local used = m:get_reused_times()
            m:close()
            if used == 0 then return end
        end
    end
    empty("127.0.0.1", side.port)
    for _, name in ipairs { "pool1." .. side.run, "pool2." .. side.run, "pool3." .. side.run, "5", "" } do
        empty("127.0.0.1", side.port, { pool = name })
    end
    empty(side.unix)
    empty(side.unix, { pool = "pool4." .. side.run })
end

local function finish(side, kept)
    side.module.cancel_pipeline(side.module)
    for _, m in ipairs(side.all) do
        m:cancel_pipeline()
        m:close()
    end
    if kept then empty_pools(side) end
end

-- Whether the server, perhaps, or the module has refused a command.
local function is_refusal(results)
    local last = results[results.n]
    if type(last) == "string" then return last:find("ERROR") ~= nil end
    for _, slot in ipairs(type(results[2]) == "table" and results[2] or {}) do
        local err = type(slot) == "table" and (slot[3] or slot[2])
        if type(err) == "string" and err:find("ERROR") then return true end
    end
    return false
end

-- memcached answers stats that it does not know with an error line, after which the module closes the
-- connection: END might follow. In a pipeline the replies behind it are lost, so there such a call
-- is another one for both sides.
local function in_pipeline(call)
    local obj = call.target ~= "wrong" and call.method == "stats" and object(reference, call.target)
    local open = type(obj) == "table" and rawget(obj, "_reqs") ~= nil
    if not open or not values.unknown_stats[call[1]] then return call end
    local other = {}
    for key, value in pairs(call) do other[key] = value end
    other[1] = "items"
    return other
end

-- By itself it gives the same as the reference, and then both are closed.
local function close_after_error(call, entry, before, theirs, used)
    if call.method == "stats" and not entry and before.connected and not before.queues and is_refusal(theirs) then
        reference.objects[call.target]:close()
        ours.objects[call.target]:close()
        used[known.CLOSED] = (used[known.CLOSED] or 0) + 1
    end
end

local runs, counted = 0, 0

-- Runs a sequence. Returns nil, or what differs: { at, text... }.
local function run(sequence, used, trace)
    runs = runs + 1
    local keys, kept, unix = {}, false, false
    for _, call in ipairs(sequence) do
        if keyed[call.method] then servers.note_key(keys, call[1]) end
        if call.method:find("keepalive", 1, true) then kept = true end
        if type(call[1]) == "table" and call[1][1] == "unix" then unix = true end
    end
    for _, side in ipairs(sides) do
        begin(side, runs)
        servers.ask(side, side.port, servers.RESET, 4)
        if unix then servers.ask(side, side.unix, servers.RESET, 4) end
    end

    local differs
    -- All commands go to the servers until one is refused, by whom ever.
    local sent = true
    local state = same.new(reference, ours)
    for i, call in ipairs(sequence) do
        call = in_pipeline(call)
        local theirs, entry, before = ask_reference(call)
        local own = invoke(ours, call, arguments(ours, call))
        if trace then
            ngx.print(calls.show_call(call), "\n    reference ", entry and "(" .. entry.name .. ") " or "", describe(theirs),
                "\n    module    ", describe(own), "\n")
        end
        local equal, more = same.results(state, theirs, own)
        if entry then used[entry.name] = (used[entry.name] or 0) + 1 end
        if equal then close_after_error(call, entry, before, theirs, used) end
        if entry or not equal or before.after_quit or call.method == "sock:send" or is_refusal(theirs) then sent = false end
        if not equal then
            entry = known.explains(before, theirs, own, state)
            if not entry then
                differs = { at = i, call = call, more = more, calls.show_call(call), "reference: " .. describe(theirs),
                    "module:    " .. describe(own), more }
                break
            end
            used[entry.name] = (used[entry.name] or 0) + 1
            if entry.after then
                entry.after(reference.objects[call.target], ours.objects[call.target], before)
            end
        end
        if call.method:find("keepalive", 1, true) and (tonumber(call[1]) or 0) < 100 and call[1] then
            ngx.sleep(0.01)    -- for the idle time to be over
        end
    end

    if not differs and sent then
        counted = counted + 1
        local equal, more = same.contents(state, servers.counts(reference), servers.counts(ours))
        if not equal then
            differs = { at = #sequence + 1, more = "counts", "the commands that the servers have had", more }
        end
    end
    if not differs then
        local list = {}
        for key in pairs(keys) do list[#list + 1] = key end
        table.sort(list)
        local address = { "port", unix and "unix" or nil }
        for _, kind in ipairs(address) do
            local equal, more = same.contents(state, servers.contents(reference, reference[kind], list),
                servers.contents(ours, ours[kind], list))
            if not equal then
                differs = { at = #sequence + 1, more = "contents", "the contents of the servers", more }
                break
            end
        end
    end
    for _, side in ipairs(sides) do finish(side, kept) end
    return differs
end

-- The same without calls that do not matter.
local function shrink(sequence, differs)
    local first = differs
    local function again(rest)
        for i, call in ipairs(rest) do
            -- it would wait in vain
            if call.method == "sock:receive" and (i == 1 or rest[i - 1].method ~= "sock:send") then return nil end
        end
        local found = run(rest, {})
        return found and found.call == first.call and found.more == first.more and found or nil
    end
    local function without(from, to)
        local rest = {}
        for i, call in ipairs(sequence) do
            if i < from or i > to then rest[#rest + 1] = call end
        end
        return rest
    end
    if differs.at < #sequence then
        local rest = without(differs.at + 1, #sequence)
        local found = again(rest)
        if found then sequence, differs = rest, found end
    end
    local size = math.ceil(#sequence / 2)
    while size >= 1 do
        local at = 1
        while at <= #sequence do
            local rest = without(at, at + size - 1)
            local found = #rest > 0 and again(rest)
            if found then
                sequence, differs = rest, found
            else
                at = at + size
            end
        end
        size = size == 1 and 0 or math.ceil(size / 2)
    end
    return sequence, differs
end

-- Runs the sequences with these numbers, and prints what came of it.
function _M.run()
    local args = ngx.req.get_uri_args()
    local seed, from, to = tonumber(args.seed), tonumber(args.from), tonumber(args.to)
    local used, total = {}, 0
    counted = 0
    for number = from, to do
        local sequence = calls.sequence(seed * 1000003 + number)
        reference.number, ours.number = number, number
        total = total + #sequence
        local differs = run(sequence, used, args.trace)
        if differs then
            local again = run(sequence, {})
            if again then
                local found
                sequence, found = shrink(sequence, again)
                ngx.print("mismatch ", number, "\n")
                for i, call in ipairs(sequence) do
                    ngx.print("  ", i == found.at and "* " or "  ", calls.show_call(call), "\n")
                end
                for i, line in ipairs(found) do
                    if i > 1 or found.at > #sequence then ngx.print("  ", line, "\n") end
                end
            else
                ngx.print("passing ", number, "\n")
                for _, line in ipairs(differs) do ngx.print("  ", line, "\n") end
            end
        end
    end
    ngx.print("used ", counted, " (counts of commands compared)\n")
    for name, count in pairs(used) do ngx.print("used ", count, " ", name, "\n") end
    ngx.print("calls ", total, "\n")
    for _, sock in pairs(ngx.ctx.socks or {}) do sock:setkeepalive(10000) end
    collectgarbage()
    ngx.say("done")
end

-- Names, one a line.
function _M.plants()
    for name in pairs(require "differential.plants") do ngx.say(name) end
end

function _M.entries()
    for _, name in ipairs(known.names()) do ngx.say(name) end
end

return _M
