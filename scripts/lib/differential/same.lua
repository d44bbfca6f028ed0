-- Whether what two sides returned is the same, as far as it can be: each has
-- its own ports, CAS uniques and statistics.

local values = require "differential.values"

local _M = {}

-- What is known to belong together: CAS uniques, while a sequence runs.
function _M.new(reference, ours)
    return { sides = { reference, ours }, uniques = { {}, {} } }
end

-- Uniques are the same if they were last time, and new ones on both sides are.
local function same_unique(state, a, b)
    if type(a) ~= "string" or type(b) ~= "string" then return a == b end
    local to, back = state.uniques[1], state.uniques[2]
    if to[a] == nil and back[b] == nil then to[a], back[b] = b, a end
    return to[a] == b and back[b] == a
end

-- Without the position that a message begins with, and the ports.
local function plain(state, side, text)
    local own = state.sides[side]
    text = text:gsub("^[^:%s]+:%d+: ", "")
    text = text:gsub(tostring(own.port), "PORT"):gsub(own.unix:gsub("%p", "%%%0"), "SOCKET")
    return text
end
_M.plain = plain

local function is_statistics(list)
    if type(list) ~= "table" then return false end
    for _, line in ipairs(list) do
        if type(line) ~= "string" or not line:find("^STAT ") then return false end
    end
    return true
end

-- Names of statistics, without those that stand for a slab or a connection.
local function stat_names(list)
    local names, n = {}, 0
    for _, line in ipairs(list) do
        local name = line:match("^STAT (%S+) ")
        if not name then
            return { line }
        elseif not name:find("%d") and not name:find(":") then
            n = n + 1
            names[n] = name
        end
    end
    return names
end

local function equal(state, a, b, where)
    if a == b then return true end
    local kind = type(a)
    if kind ~= type(b) then return false, where end
    if kind == "number" then return a ~= a and b ~= b, where end
    if kind == "string" then
        -- decr pads a number that gets shorter, unless somebody is using the item
        local number = a:match("^(%d+) *$")
        if number and number == b:match("^(%d+) *$") then return true end
        return plain(state, 1, a) == plain(state, 2, b), where
    end
    if kind ~= "table" then return false, where end
    if (a[1] or b[1]) and is_statistics(a) and is_statistics(b) then
        local left, right = stat_names(a), stat_names(b)
        return table.concat(left, " ") == table.concat(right, " "), where .. " (statistics)"
    end
    for key, value in pairs(a) do
        local ok, at
        if key == "ttl" and b.ttl then
            -- the clocks tick at different moments
            if math.abs(value - b.ttl) > 3 or (value < 0) ~= (b.ttl < 0) then return false, where .. " (time left)" end
            value = b.ttl
        end
        if key == 3 and type(a[1]) == "string" and type(value) == "string" and value:find("^%d+$") and #a == 3 then
            ok, at = same_unique(state, value, b[key]), where .. " (CAS unique)"
        else
            ok, at = equal(state, value, b[key], where .. "[" .. values.show(key) .. "]")
        end
        if not ok then return false, at end
    end
    for key in pairs(b) do
        if a[key] == nil then return false, where .. "[" .. values.show(key) .. "]" end
    end
    return true
end

-- Results as invoke() has them.
function _M.results(state, a, b)
    if a[1] ~= b[1] then return false, "one raises" end
    if a.n ~= b.n then return false, ("%d and %d results"):format(a.n - 1, b.n - 1) end
    if a.n == 4 and type(a[4]) == "string" and type(b[4]) == "string" and type(a[2]) == "string"
        and a[4]:find("^%d+$") then
        -- value, flags, CAS unique
        for i = 2, 3 do
            if not equal(state, a[i], b[i], "") then return false, "result " .. (i - 1) end
        end
        return same_unique(state, a[4], b[4]), "CAS unique"
    end
    for i = 2, a.n do
        local ok, at = equal(state, a[i], b[i], "result " .. (i - 1))
        if not ok then return false, at end
    end
    return true
end

function _M.contents(state, a, b)
    return equal(state, a, b, "contents")
end

return _M
