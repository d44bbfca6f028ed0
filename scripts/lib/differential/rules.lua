-- What docs/errors.md says that this module refuses, written once more, to know it
-- of a call beforehand (for known.lua).

local values = require "differential.values"

local _M = {}

local library

function _M.init(opts) library = opts.library end

-- A raised message without the position it begins with.
function _M.message(text)
    return type(text) == "string" and text:gsub("^[^:%s]+:%d+: ", "") or text
end

local storage = { set = true, add = true, replace = true, append = true, prepend = true, cas = true }

-- The arguments of the methods: their names, behind the key if it has one.
-- A ? marks those that may be nil and false.
local arguments = {
    incr = { "key", "delta" }, decr = { "key", "delta" }, touch = { "key", "exptime" },
    get = { "key" }, gets = { "key" }, delete = { "key" },
    flush_all = { "time?" }, stats = { "args?" }, verbosity = { "level" },
    cas = { "key", "value", "cas unique", "exptime?", "flags?" },
}
for method in pairs(storage) do
    arguments[method] = arguments[method] or { "key", "value", "exptime?", "flags?" }
end
-- The order in which types are looked at.
local type_order = { "value", "exptime", "flags", "cas unique", "delta", "time", "args", "level" }

local function is_text(value) return type(value) == "string" or type(value) == "number" end

local function is_odd(number)
    return type(number) == "number" and (number ~= number or number == 0 and 1 / number < 0)
end

-- Such numbers among arguments and keys as text.
function _M.odd_to_text(args)
    for i = 1, args.n do
        if is_odd(args[i]) then args[i] = tostring(args[i]) end
    end
    if type(args[1]) == "table" and args.n == 1 then
        local keys = {}
        for i, key in ipairs(args[1]) do keys[i] = is_odd(key) and tostring(key) or key end
        args[1] = keys
    end
end

local function splits(text) return text:find("[%z\1-\32\127]") ~= nil end

-- a <= b, of digits
local function at_most(a, b)
    a = a:gsub("^0+(%d)", "%1")
    return #a < #b or #a == #b and a <= b
end

local U64, I64, U32 = "18446744073709551615", "9223372036854775807", "4294967295"

local function is_unsigned(text, most)
    if text:find("^%-0+$") then return true end
    local digits = text:match("^%+?(%d+)$")
    return digits ~= nil and at_most(digits, most)
end

local function is_signed(text)
    local sign, digits = text:match("^([+-]?)(%d+)$")
    return digits ~= nil and (at_most(digits, I64) or sign == "-" and at_most(digits, "9223372036854775808"))
end

-- One key as it is sent: its text, or nil, the type it has instead, or the
-- error that the transform raised.
local function wire(obj, key)
    local escape = obj.escape_key
    if escape == ngx.escape_uri then return ngx.escape_uri(key) end
    local ok, got = pcall(escape, key)
    if not ok then return nil, nil, got end
    if not is_text(got) then return nil, type(got) end
    return tostring(got)
end

local function bad_word(name)
    return "word", "bad " .. name .. ": contains whitespace or control characters"
end

local function noreply(name)
    return "noreply", "bad " .. name .. ": noreply is not supported"
end

-- What memcached reads at a time; a longer line makes it close the connection.
local LINE = 16000

local FORMAT = "CLIENT_ERROR bad command line format"

-- Why a command with these texts is not sent: a kind, and the error.
local function refusal(method, key, is_custom, list, text)
    if list then
        for _, one in ipairs(list) do
            if is_custom and splits(one) then return bad_word("key") end
        end
        return
    end
    local function words(...)
        if is_custom and key and splits(key) then return bad_word("key") end
        for _, name in ipairs { ... } do
            if splits(text[name]) then return bad_word(name) end
            if text[name] == "noreply" then return noreply(name) end
        end
    end
    if storage[method] then
        local unique = method == "cas" and (text["cas unique"] or "") or nil
        text["cas unique"] = unique
        if key == "" or text.flags == "" or text.exptime == "" or unique == "" then
            for name, given in pairs(text) do
                if name ~= "value" and (splits(given) or given:find("noreply", 1, true)) then
                    return "beside", "ERROR"
                end
            end
            return #key > LINE and "line" or is_custom and splits(key) and "beside" or "header", "ERROR"
        end
        local kind, err = words("flags", "exptime", unique and "cas unique")
        if kind then return kind, err end
        if #key > 250 then return #key > LINE and "line" or "header", FORMAT end
        for _, name in ipairs { "flags", "exptime", "cas unique" } do
            local digits = text[name]
            if digits and #digits > 128 and digits:find("^0+%d*$") then return "long integer", FORMAT end
        end
        if not is_unsigned(text.flags, U32) then
            local digits = text.flags:match("^%+?(%d+)$")
            if digits and is_signed(text.exptime) and (not unique or is_unsigned(unique, U64))
                and at_most(digits, U64) then
                return "flags", FORMAT
            end
            return "header"
        end
        if not is_signed(text.exptime) or unique and not is_unsigned(unique, U64) then return "header" end
        return
    end
    if method == "stats" then
        local args = text.args
        if not args or args == "" then return end
        for word in (args .. " "):gmatch("(.-) ") do
            if word == "" or splits(word) then return bad_word("args") end
            if word == "noreply" then return noreply("args") end
        end
        if #args > 1024 then return "long args", "bad args: too long" end
        return
    end
    for _, name in ipairs { "delta", "exptime", "time", "level" } do
        local given = text[name]
        if given then
            if key == "" or given == "" then
                if key and #key > LINE then return "line", "ERROR" end
                return (splits(given) or given == "noreply" or is_custom and key and splits(key)) and "beside" or nil, "ERROR"
            end
            local kind, err = words(name)
            if kind then return kind, err end
            if key and #key > LINE then return "line", FORMAT end
            if #given > 128 and given:find("^0+%d*$") and (not key or #key <= 250) then
                return "long integer", name == "delta" and "CLIENT_ERROR invalid numeric delta argument"
                    or name == "level" and FORMAT or "CLIENT_ERROR invalid exptime argument"
            end
            return
        end
    end
    if not key or key == "" then return end
    local kind, err = words()
    if kind then return kind, err end
    if #key > LINE and method == "delete" then return "line", FORMAT end
    if #key > 250 and method == "get" then return "long get" end
end

-- A call, looked at: { method, args, obj, queues, connected,
--   is_list, list     a get of many keys
--   bad_key           the type of what a transform returned instead of text
--   escape_error      what it raised
--   bad_type          the message that a wrong type gives; bad_table: it is a table
--   odd_number        the value, or a key that is sent as it is, is -0 or NaN
--   refusal, refusal_text }
function _M.look(call, args, obj, state)
    local method = call.method
    local c = {
        method = method, args = args, obj = obj, target = call.target,
        after_quit = obj and obj.after_quit, queues = state.queues, connected = state.connected, open = state.open, call = call,
    }
    local expected = arguments[method]
    if not expected or not obj or not obj.sock then return c end

    local key
    local is_custom = obj.escape_key ~= ngx.escape_uri
    c.two_results = expected[1] == "key" and obj.escape_key == values.escapes.two
    if expected[1] == "key" then
        if type(args[1]) == "table" and (method == "get" or method == "gets") then
            c.is_list, c.list = true, {}
            for i = 1, #args[1] do
                local text, bad, err = wire(obj, args[1][i])
                if not text then
                    c.bad_key, c.escape_error = bad, err
                    return c
                end
                c.list[i] = text
            end
        else
            -- the elements of a value are joined first, and both raise if that fails
            if type(args[2]) == "table" and storage[method] and method ~= "cas"
                and not pcall(_M.joined, args[2]) then
                return c
            end
            local bad, err
            key, bad, err = wire(obj, args[1])
            if not key then
                c.bad_key, c.escape_error = bad, err
                return c
            end
        end
    end

    local text = {}
    for i, name in ipairs(expected) do
        local value = args[i]
        if name:find("?", 1, true) then
            name = name:sub(1, -2)
            if not value then value = storage[method] and "0" or nil end
        end
        if name ~= "key" then text[name] = value end
    end
    for _, name in ipairs(type_order) do
        local value = text[name]
        local is_asked = false
        for _, one in ipairs(expected) do is_asked = is_asked or one:gsub("?", "") == name end
        if is_asked and not is_text(value) then
            local is_joined = name == "value" and type(value) == "table" and method ~= "cas"
            local is_absent = value == nil and name ~= "value"
            if not is_joined and not is_absent then
                c.bad_type = ("bad %s argument (string or number expected, got %s)"):format(name, type(value))
                c.bad_table = type(value) == "table" and name ~= "value"
                return c
            end
        end
    end
    local value = text.value
    c.odd_number = is_odd(value)
    if is_custom and expected[1] == "key" then
        for _, one in ipairs(c.is_list and args[1] or { args[1] }) do
            c.odd_number = c.odd_number or is_odd(one)
        end
    end
    for name, given in pairs(text) do
        if is_text(given) then text[name] = tostring(given) end
    end
    for _, name in ipairs { "delta", "level" } do
        if text[name] == nil and (expected[2] == name or expected[1] == name) then text[name] = "" end
    end
    if method == "touch" and text.exptime == nil then text.exptime = "" end
    c.refusal, c.refusal_text = refusal(method, key, is_custom, c.list, text)
    return c
end

-- Whether a slot of a pipeline's results has one of these errors.
function _M.has_error(results, errors)
    for _, slot in ipairs(type(results) == "table" and results or {}) do
        if errors[slot[3] or slot[2] or ""] then return true end
    end
end

function _M.joined(value)
    local parts = {}
    for i = 1, #value do
        parts[i] = type(value[i]) == "table" and _M.joined(value[i]) or value[i]
    end
    return table.concat(parts)
end

function _M.bad_unescape(obj)
    return obj.unescape_key == values.unescapes.raises or obj.unescape_key == values.unescapes.null
end

return _M
