-- What this module does differently by intention: the one table of it. For a
-- call to which an entry applies, either the reference is spared the call
-- (refused() below), because it would lose step with the server, or both make
-- it, and the entry says whether their results are the two it knows
-- (explains()). All else has to be the same.

local rules = require "differential.rules"

local pack = function(...) return { n = select("#", ...), ... } end

local _M = {}

-- What differs where the results are the same: see run.lua.
_M.CLOSED = "stats: an error closes the connection"

local shared, legacy

-- The cosockets' name for a method.
local cosocket = { connect = "connect", set_keepalive = "setkeepalive" }
for _, name in ipairs { "connect", "setkeepalive", "send", "receive" } do cosocket["sock:" .. name] = name end

-- Errors in the position where the method has them.
local function failure(method, is_list, err)
    if is_list then return pack(true, nil, err) end
    if method == "get" then return pack(true, nil, nil, err) end
    if method == "gets" then return pack(true, nil, nil, nil, err) end
    return pack(true, nil, err)
end

-- Entries for which the reference is not asked, or asked over a connection of
-- its own, or in other words (adapt, which may return what undoes it). `when(c)`
-- returns true, or the results that the module has to have; c is the call, see
-- rules.look().

local spared = {
    {
        name = "transform: neither string nor number",
        reason = "the reference sends the command without a key, or fails in its own ways",
        when = function(c)
            return c.bad_key and pack(false, "bad key argument (string or number expected, got " .. c.bad_key .. ")")
        end,
    },
    {
        name = "transform: raises in a pipeline",
        reason = "the reference leaves half a command in the pipeline",
        when = function(c) return c.escape_error and c.queues and pack(false, c.escape_error) end,
    },
    {
        name = "transform: unescape raises, or returns nil",
        reason = "the reference leaves the rest of the reply unread",
        when = function(c)
            return c.is_list and c.connected and #c.list > 0 and rules.bad_unescape(c.obj) and not c.refusal
        end,
    },
    {
        name = "types: raised at once in a pipeline",
        reason = "the reference raises when it is committed, and loses all of it",
        when = function(c) return c.bad_type and c.queues and pack(false, c.bad_type) end,
    },
    {
        name = "types: tables as arguments that are no values",
        reason = "the reference joins the elements into the command",
        when = function(c) return c.bad_type and c.bad_table and c.connected and pack(false, c.bad_type) end,
    },
    {
        name = "words: whitespace or control characters",
        reason = "memcached would see several commands or arguments",
        when = function(c)
            return c.connected and not c.bad_type and c.refusal == "word"
                and failure(c.method, c.is_list, c.refusal_text)
        end,
    },
    {
        name = "words: beside an empty argument",
        reason = "memcached answers ERROR to the first, and then to the others",
        when = function(c)
            return c.connected and not c.bad_type and c.refusal == "beside"
                and failure(c.method, c.is_list, c.refusal_text)
        end,
    },
    {
        name = "words: noreply",
        reason = "the reference waits for a reply that does not come",
        when = function(c)
            return c.connected and not c.bad_type and c.refusal == "noreply"
                and failure(c.method, c.is_list, c.refusal_text)
        end,
    },
    {
        name = "stats: arguments that are too long",
        reason = "memcached closes the connection",
        when = function(c)
            return c.connected and c.refusal == "long args" and failure(c.method, false, c.refusal_text)
        end,
    },
    {
        name = "flags: 2^32 and more",
        reason = "memcached would store what remains of them in 32 bits",
        when = function(c)
            return c.connected and not c.bad_type and c.refusal == "flags"
                and failure(c.method, false, c.refusal_text)
        end,
    },
    {
        name = "integers: of more than 128 bytes",
        reason = "a limit; memcached reads as many leading zeros as its line holds",
        when = function(c)
            return c.connected and not c.bad_type and c.refusal == "long integer"
                and failure(c.method, false, c.refusal_text)
        end,
    },
    {
        name = "keys: that make a line of more than 16 KB",
        reason = "memcached closes the connection",
        when = function(c)
            return c.connected and not c.bad_type and c.refusal == "line"
                and failure(c.method, false, c.refusal_text)
        end,
    },
    {
        name = "pipeline: a get of a key that is too long",
        reason = "memcached drops the replies before its own",
        when = function(c) return c.queues and c.refusal == "long get" end,
    },
    {
        name = "storage: a header that memcached refuses",
        reason = "the reference has sent the value, which memcached reads as commands",
        when = function(c) return c.connected and not c.bad_type and c.refusal == "header" end,
    },
    {
        name = "stats: reset and detail on",
        reason = "the reference waits for an END that does not come",
        server = function(args) return "stats " .. args[1] .. "\r\n" end,
        when = function(c)
            if c.method ~= "stats" or not c.connected then return end
            local got = ({ reset = "RESET", ["detail on"] = "OK", ["detail off"] = "OK" })[c.args[1]]
            return got and pack(true, { got }, nil)
        end,
    },
    {
        name = "set_keepalive: a wrong idle time",
        reason = "the reference has put half of the connection into the pool when it looks at it;"
            .. " the worker crashes later",
        when = function(c)
            local idle = c.args and c.args[1]
            if cosocket[c.method] ~= "setkeepalive" or not c.open or c.args.n > 2 or idle == nil or tonumber(idle) then
                return
            end
            return pack(false, "bad argument #1 to 'setkeepalive' (number expected, got " .. type(idle) .. ")")
        end,
    },
    {
        name = "numbers: -0 and NaN",
        reason = "the reference announces a value's length that is not the one it sends; here they are"
            .. " sent as tostring writes them, also as keys",
        adapt = rules.odd_to_text,
        when = function(c) return c.odd_number and not c.bad_type and not c.refusal and c.connected end,
    },
    {
        name = "transform: two results",
        reason = "with a second result the reference does not call its table function as meant",
        adapt = function(_, obj)
            local escape = obj.escape_key
            obj.escape_key = function(key) return (escape(key)) end
            return function() obj.escape_key = escape end
        end,
        when = function(c) return c.two_results end,
    },
}

-- What happens to the reference if it goes on after quit.
local lost = { closed = true, ["connection reset by peer"] = true, ["broken pipe"] = true }

-- Entries for which both were asked. `when(c, theirs, own)`; both are results
-- as invoke() has them.
local function names_dropped(text)
    return type(text) == "string" and rules.message(text):gsub("%w+ '[%w_?]+' %((a %w+ value)%)", "%1")
end

local differing = {
    {
        name = "quit: what an attempt to go on returns",
        reason = "the reference sends, which fails in several ways",
        when = function(c, theirs, own)
            if not c.after_quit or not theirs[1] or not own[1] then return end
            local first, failed = own[2], own[own.n] == "closed"
            if c.method:find("close$") then
                return (first == 1 or failed) and (theirs[2] == 1 or lost[theirs[3]])
            elseif c.method:find("reused_?times$") then
                return (type(first) == "number" or failed) and lost[theirs[3]]
            elseif c.method == "sock:send" then
                return (type(first) == "number" or lost[own[3]]) and lost[theirs[3]]
            elseif c.method == "sock:receive" then
                return lost[own[3]] and lost[theirs[3]]
            elseif c.method == "commit_pipeline" then
                return (failed or type(first) == "table")
                    and (lost[theirs[3]] or rules.has_error(theirs[2], lost))
            end
            local goes_on = c.method == "quit" or c.method:find("keepalive$")
            return failed and (lost[theirs[theirs.n]] or goes_on and theirs[2] == 1
                or c.method == "sslhandshake" and theirs[3] == "handshake failed")
        end,
    },
    {
        name = "words: names of local variables",
        reason = "they are the library's own",
        when = function(_, theirs, own)
            return not theirs[1] and not own[1] and names_dropped(theirs[2]) == names_dropped(own[2])
                and names_dropped(own[2]):find("^attempt to %w+ a %w+ value$")
        end,
    },
    {
        name = "words: the number and name of an argument",
        reason = "the reference's tail call loses the name, and counts the object",
        when = function(c, theirs, own)
            if theirs[1] or own[1] then return end
            local number, rest = rules.message(theirs[2]):match("^bad argument #(%d) to '%?' (.*)$")
            local name = cosocket[c.method]
            return number and name
                and rules.message(own[2]) == ("bad argument #%d to '%s' %s"):format(number - 1, name, rest)
        end,
    },
    {
        name = "words: the pattern in receive's message",
        reason = "newer versions of ngx_lua name it, so the module does",
        when = function(c, theirs, own)
            return c.method == "sock:receive" and not theirs[1] and not own[1]
                and rules.message(theirs[2]) == "bad argument #2 to '?' (bad pattern argument)"
                and rules.message(own[2]) == ("bad argument #1 to 'receive' (bad pattern argument%s)"):format(
                    type(c.args[1]) == "string" and ": " .. c.args[1] or "")
        end,
    },
    {
        name = "set_keepalive: a wrong pool_size for a pool that is there",
        reason = "the reference only looks at it if it makes the pool; the module looks at its type"
            .. " always, and the reference's pools sometimes outlive their connections",
        when = function(c, theirs, own)
            return cosocket[c.method] == "setkeepalive" and theirs[2] == 1 and not own[1]
                and rules.message(own[2]):find("^bad argument #2 to 'setkeepalive' %(")
        end,
        after = function(_, own, c) return own:set_keepalive(c.args[1]) end,
    },
    {
        name = "shared: get_reused_times",
        reason = "it counts the other objects that the connections have served",
        only = function() return shared end,
        when = function(c, theirs, own)
            return c.method:find("reused_?times$") and type(theirs[2]) == "number" and type(own[2]) == "number"
        end,
    },
    {
        name = "shared: pool_size of set_keepalive",
        reason = "it does not matter there",
        only = function() return shared end,
        when = function(c, theirs, own)
            return cosocket[c.method] == "setkeepalive" and own[2] == 1 and not theirs[1]
                and rules.message(theirs[2]):find('^bad argument #3 to \'%?\' %(bad "pool_size" option value: ')
        end,
        after = function(theirs, _, c) return theirs:set_keepalive(c.args[1]) end,
    },
    {
        name = "shared: pool_size of connect",
        reason = "objects do not wait for a connection",
        only = function() return shared end,
        when = function(c, theirs, own)
            return cosocket[c.method] == "connect" and own[2] == 1
                and theirs[3] == "too many waiting connect operations"
        end,
        after = function(_, own) return own:close() end,
    },
    {
        name = "memc.sock: wrong arguments of a closed one",
        reason = "arguments are looked at before the connection is",
        when = function(c, theirs, own)
            return (c.method == "sock:send" or c.method == "sock:receive") and theirs[3] == "closed"
                and not own[1] and rules.message(own[2]):find("^bad argument #1 to '" .. cosocket[c.method] .. "' %(")
        end,
    },
    {
        name = "set_keepalive: wrong arguments of a closed object",
        reason = "arguments are looked at before the connection is",
        when = function(c, theirs, own)
            return c.method:find("keepalive") and theirs[3] == "closed" and not own[1]
                and own[2]:find("^bad argument #[12] to 'setkeepalive' %(")
        end,
    },
    {
        name = "types: other words",
        reason = "the module's message names the argument",
        when = function(c, theirs, own)
            return c.bad_type and not theirs[1] and not own[1] and rules.message(own[2]) == c.bad_type
        end,
    },
    {
        name = "types: before the connection is looked at",
        reason = "the reference mostly returns closed",
        only = function() return not legacy end,
        when = function(c, theirs, own)
            return c.bad_type and theirs[1] and not own[1]
                and (theirs[theirs.n] == "closed" or c.after_quit and lost[theirs[theirs.n]])
                and rules.message(own[2]) == c.bad_type
        end,
    },
}

function _M.init(opts)
    shared, legacy = opts.shared, opts.legacy
    rules.init(opts)
end

-- The entry for which the reference is spared the call, the results, if it is
-- not to be asked aside, and else the entries that adapt the call. `state`: {
-- open, connected, queues }.
function _M.refused(call, args, obj, state)
    local c = rules.look(call, args, obj, state)
    local adapting = {}
    for _, entry in ipairs(spared) do
        local results = entry.when(c)
        if results and entry.adapt then
            adapting[#adapting + 1] = entry
        elseif results then
            return entry, type(results) == "table" and results or nil
        end
    end
    return nil, nil, adapting
end

-- What explains() wants to know of the time before the call.
function _M.look(call, args, obj, state)
    return rules.look(call, args, obj, state)
end

function _M.explains(c, theirs, own)
    for _, entry in ipairs(differing) do
        if not entry.only or entry.only(shared, legacy) then
            if entry.when(c, theirs, own) then return entry end
        end
    end
end

function _M.names()
    local names = { _M.CLOSED }
    for _, entries in ipairs { spared, differing } do
        for _, entry in ipairs(entries) do
            if not entry.only or entry.only(shared, legacy) then names[#names + 1] = entry.name end
        end
    end
    return names
end

return _M
