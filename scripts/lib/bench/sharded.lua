-- Several servers for a library that knows only one, as one writes it in Lua: the ring of nginx's
-- `hash ... consistent` (160 points of each server), searched by halves, and an object of the library for
-- each server that a request needs. A list of keys goes to one server after the other.
--
-- Returns a function: of the library and the ports of 127.0.0.1, a class with the methods that
-- contestants.lua calls.

local crc32 = ngx.crc32_long
local floor = math.floor
local band, rshift = bit.band, bit.rshift
local char = string.char

-- nginx's crc32 goes on with a number's bytes where a library's begins anew: so it is written here.
local crc_table = {}
for byte = 0, 255 do
    local crc = byte
    for _ = 1, 8 do
        crc = band(crc, 1) == 1 and bit.bxor(rshift(crc, 1), 0xedb88320) or rshift(crc, 1)
    end
    crc_table[byte] = crc
end

local function update(crc, text)
    for i = 1, #text do
        crc = bit.bxor(crc_table[band(bit.bxor(crc, text:byte(i)), 0xff)], rshift(crc, 8))
    end
    return crc
end

-- Sorted hashes, and the index of each one's server.
local function ring_of(ports)
    local points = {}
    for at, port in ipairs(ports) do
        local base, previous = update(-1, "127.0.0.1\0" .. port), 0
        for _ = 1, 160 do
            local bytes = char(band(previous, 0xff), band(rshift(previous, 8), 0xff),
                band(rshift(previous, 16), 0xff), rshift(previous, 24))
            previous = bit.bnot(update(base, bytes)) % 2 ^ 32
            points[#points + 1] = { previous, at }
        end
    end
    table.sort(points, function(a, b) return a[1] < b[1] end)
    local hashes, owners = {}, {}
    for i, point in ipairs(points) do
        hashes[i], owners[i] = point[1], point[2]
    end
    return hashes, owners
end

return function(library, ports)
    local hashes, owners = ring_of(ports)
    local count = #hashes

    -- The index of the key's server.
    local function server_of(key)
        local hash = crc32(key)
        local low, high = 1, count + 1
        while low < high do
            local middle = floor((low + high) / 2)
            if hashes[middle] < hash then
                low = middle + 1
            else
                high = middle
            end
        end
        return owners[low > count and 1 or low]
    end

    local Sharded = {}
    local class = { __index = Sharded }

    function Sharded.new()
        return setmetatable({ objects = {} }, class)
    end

    function Sharded:set_timeout(timeout)
        self.timeout = timeout
    end

    function Sharded.connect()
        return 1
    end

    local function object_of(self, at)
        local object = self.objects[at]
        if object then
            return object
        end
        object = library:new()
        object:set_timeout(self.timeout)
        local ok, err = object:connect("127.0.0.1", ports[at])
        if not ok then
            return nil, err
        end
        self.objects[at] = object
        return object
    end

    local function get_list(self, keys)
        local lists, found = {}, {}
        for _, key in ipairs(keys) do
            local at = server_of(key)
            local list = lists[at]
            if not list then
                list = {}
                lists[at] = list
            end
            list[#list + 1] = key
        end
        for at, list in pairs(lists) do
            local object, err = object_of(self, at)
            if not object then
                return nil, err
            end
            local part
            part, err = object:get(list)
            if not part then
                return nil, err
            end
            for key, item in pairs(part) do
                found[key] = item
            end
        end
        return found
    end

    function Sharded:get(key)
        if type(key) == "table" then
            return get_list(self, key)
        end
        local object, err = object_of(self, server_of(key))
        if not object then
            return nil, nil, err
        end
        return object:get(key)
    end

    function Sharded:set_keepalive(...)
        for _, object in pairs(self.objects) do
            local ok, err = object:set_keepalive(...)
            if not ok then
                return nil, err
            end
        end
        return 1
    end

    -- For those who want to know.
    Sharded.server_of = server_of
    return Sharded
end
