-- resty.memcached.queue: writes that nobody waits for. An object is a table of Lua: it holds
-- nothing of its own, so that one at module level is good in every worker, and one of each request
-- costs little.
local native = ...

local escape_uri = ngx.escape_uri
local concat = table.concat
local floor, huge = math.floor, math.huge
local pairs, setmetatable, tonumber, type = pairs, setmetatable, tonumber, type

local is_running, limits, find = native.is_running, native.limits, native.find
local transform, shown = native.transform, native.shown
local store, delete, touch = native.store, native.delete, native.touch
local incr, decr = native.incr, native.decr
local pending, counts = native.pending, native.counts
-- nil if the module is built without groups
local group_for = native.group_for
local verbs = native.verbs
local SET, ADD, REPLACE = verbs.SET, verbs.ADD, verbs.REPLACE
local APPEND, PREPEND = verbs.APPEND, verbs.PREPEND

local NO_LOOP = "no event loop: a queue takes writes in worker processes only"
local KNOWN = "key_transform, max_operations, max_size, timeout"

local Queue = {}
local metatable = { __index = Queue }

-- Fields of an object: the number of its queue in this worker, or the name of the upstream whose
-- servers have queues; then its limits. The native functions take them as they are.
local NUMBER, OPERATIONS, SIZE, TIMEOUT = 1, 2, 3, 4

-- A limit's name in options, its place, and its greatest value.
local LIMITS = {
    max_operations = { OPERATIONS, 2 ^ 31 },
    max_size = { SIZE, 2 ^ 40 },
    timeout = { TIMEOUT, 2 ^ 31 - 1 },
}

local function check_options(self, options)
    for name, value in pairs(options) do
        local limit = LIMITS[name]
        if limit then
            if type(value) ~= "number" or not (value >= 1 and value <= limit[2])
                or value ~= floor(value) then
                return "bad " .. name .. " option: expecting a positive integer, got " .. shown(value)
            end
            self[limit[1]] = value
        elseif name == "key_transform" then
            local escape = type(value) == "table" and value[1]
            if type(escape) ~= "function" then
                return "bad key_transform option: expecting { escape, unescape }, got "
                    .. (type(value) == "table" and "a table whose first element is "
                        .. shown(escape) or shown(value))
            end
            self.escape_key = escape
        else
            return "unknown option " .. shown(name) .. " of queue.new: it takes " .. KNOWN
        end
    end
end

local function take_limits(self)
    local operations, size, timeout = limits()
    self[OPERATIONS] = self[OPERATIONS] or operations
    self[SIZE] = self[SIZE] or size
    self[TIMEOUT] = self[TIMEOUT] or timeout
end

-- The number or the name; nil if nobody knows yet.
local function find_target(self)
    local host, port = self.host, self.port
    if group_for and port ~= 0 then
        local name, err = group_for(host, port)
        if name or err then
            return name, err
        elseif name == false then
            return nil
        elseif not port then
            return nil, "there is no upstream " .. shown(host)
        end
    end
    return find(host, port)
end

local function new(host, port, options)
    if type(host) ~= "string" or host == "" then
        return nil, "bad host: expecting an address, a name or unix:/path, got " .. shown(host)
    end
    local unix = host:sub(1, 5):lower() == "unix:"
    if (unix or group_for) and type(port) == "table" and options == nil then
        port, options = nil, port
    end
    local number = tonumber(port)
    if unix and port == nil then
        number = 0
    elseif port == nil and group_for and not host:find("^[%d.]+$") then
        number = nil
    elseif not number or number ~= floor(number) or number < 1 or number > 65535 then
        return nil, "bad port: expecting an integer from 1 to 65535, got " .. shown(port)
    end
    if options ~= nil and type(options) ~= "table" then
        return nil, "bad options: expecting a table, got " .. shown(options)
    end

    local self = { false, false, false, false, host = host, port = number, escape_key = escape_uri }
    if options then
        local err = check_options(self, options)
        if err then
            return nil, err
        end
    end
    if is_running() == 1 then
        take_limits(self)
        local found, err = find_target(self)
        if err then
            return nil, err
        end
        self[NUMBER] = found or false
    end
    return setmetatable(self, metatable)
end

-- The number of an object that was made before there was a worker.
local function number_of(self)
    if is_running() ~= 1 then
        return nil, NO_LOOP
    end
    local found, err = find_target(self)
    if not found then
        return nil, err or NO_LOOP
    end
    take_limits(self)
    self[NUMBER] = found
    return found
end

-- Only the first result of a transform counts, and it cannot yield.
local function wire_key(self, key)
    local escape = self.escape_key
    if escape == escape_uri then
        if type(key) == "string" then
            return key, true
        end
        return escape_uri(key), false
    end
    return transform(escape, key), false
end

local function joined(value)
    local parts = {}
    for i = 1, #value do
        local part = value[i]
        parts[i] = type(part) == "table" and joined(part) or part
    end
    return concat(parts)
end

local function storage(self, verb, key, value, exptime, flags)
    local number, err = self[NUMBER]
    if not number then
        number, err = number_of(self)
        if not number then
            return nil, err
        end
    end
    if type(value) == "table" then
        value = joined(value)
    end
    local text, escape = wire_key(self, key)
    return store(number, self[OPERATIONS], self[SIZE], self[TIMEOUT], text, escape, verb, value,
        exptime or "0", flags or "0")
end

function Queue.set(self, key, value, exptime, flags)
    return storage(self, SET, key, value, exptime, flags)
end

function Queue.add(self, key, value, exptime, flags)
    return storage(self, ADD, key, value, exptime, flags)
end

function Queue.replace(self, key, value, exptime, flags)
    return storage(self, REPLACE, key, value, exptime, flags)
end

function Queue.append(self, key, value, exptime, flags)
    return storage(self, APPEND, key, value, exptime, flags)
end

function Queue.prepend(self, key, value, exptime, flags)
    return storage(self, PREPEND, key, value, exptime, flags)
end

local function method(native_function)
    return function(self, key, argument)
        local number, err = self[NUMBER]
        if not number then
            number, err = number_of(self)
            if not number then
                return nil, err
            end
        end
        local text, escape = wire_key(self, key)
        return native_function(number, self[OPERATIONS], self[SIZE], self[TIMEOUT], text, escape,
            argument)
    end
end

Queue.delete = method(delete)
Queue.touch = method(touch)
Queue.incr = method(incr)
Queue.decr = method(decr)

function Queue.pending(self)
    local number = self[NUMBER]
    if not number then
        return 0, 0
    end
    return pending(number)
end

function Queue.counts(self)
    local number = self[NUMBER] or huge
    local taken, done, unmet, refused, lost, dropped, full = counts(number)
    return {
        taken = taken, done = done, unmet = unmet, refused = refused, lost = lost,
        dropped = dropped, full = full,
    }
end

return { new = new }
