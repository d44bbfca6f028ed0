-- For suites of servers used as one: the vectors of src/distribution/golden.
local M = {}

local function lines_of(path)
    local lines = {}
    for line in assert(io.open(path)):lines() do
        lines[#lines + 1] = line
    end
    return lines
end

local function decoded(text)
    return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- { name = { servers = { ... }, chosen = { ... } } } of a file
function M.vectors(folder, file)
    local vectors, vector = {}, nil
    for _, line in ipairs(lines_of(folder .. "/" .. file .. ".txt")) do
        local name = line:match("^%[(.*)%]$")
        local word, rest = line:match("^(%a+) (.*)$")
        if name then
            vector = { servers = {}, chosen = {}, keys = {} }
            vectors[name] = vector
        elseif word == "server" then
            vector.servers[#vector.servers + 1] = rest:match("^%S+")
        elseif word == "key" then
            vector.keys[#vector.keys + 1] = decoded(rest)
        elseif word == "chosen" then
            for digit in rest:gmatch(".") do
                vector.chosen[#vector.chosen + 1] = tonumber(digit, 36) + 1
            end
        end
    end
    return vectors
end

function M.keys(folder)
    local keys = lines_of(folder .. "/keys.txt")
    for i, key in ipairs(keys) do
        keys[i] = decoded(key)
    end
    return keys
end

local function same(text)
    return text
end

-- An object that sends keys as they are. It waits long: on a busy machine a server may be slow, and one
-- that is given up is disabled.
function M.object()
    local m = assert(require "resty.memcached":new { key_transform = { same, same } })
    m:set_timeouts(20000, 20000, 20000)
    return m
end

return M
