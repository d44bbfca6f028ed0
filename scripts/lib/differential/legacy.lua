-- Debian's lua-nginx-memcached (0.14), made to look like 0.17 from outside, so that
-- scripts/differential can compare with it. The differences between the two:
--
-- * 0.14 has no set_timeouts, no sslhandshake and no pipelines. Here the commands of
--   a pipeline are run one by one when it is committed.
-- * gets returns the error of a failed send as its third result, not as its fourth.
-- * Required arguments that are nil raise, where 0.17 sends the line without them.
-- * It joins its command to one string, whence other messages about wrong types.

local rules = require "differential.rules"

local _M = {}

-- Which argument, behind the object, is required and may be nil.
local required = { cas = 3, incr = 2, decr = 2, touch = 2, verbosity = 1 }
local joins = { set = true, add = true, replace = true, append = true, prepend = true }

local pipelined = {
    "set", "add", "replace", "append", "prepend", "delete", "get", "incr", "decr", "touch", "stats", "verbosity",
}

function _M.complete(library)
    local complete = { legacy = true }
    for name, f in pairs(library) do complete[name] = f end
    local mt = { __index = complete }

    function complete.new(self, opts)
        local memc, err = library.new(self, opts)
        if not memc then return nil, err end
        return setmetatable(memc, mt)
    end

    function complete.set_timeouts(self, ...)
        local sock = self.sock
        if not sock then return nil, "not initialized" end
        sock:settimeouts(...)
        return 1
    end

    function complete.set_timeout(self, timeout)
        return complete.set_timeouts(self, timeout, timeout, timeout)
    end

    function complete.sslhandshake(self, ...)
        local sock = self.sock
        if not sock then return nil, "not initialized" end
        return sock:sslhandshake(...)
    end

    for name, at in pairs(required) do
        local f = library[name]
        complete[name] = function(self, ...)
            local args = { ... }
            if args[at] == nil then args[at] = "" end
            return f(self, unpack(args, 1, math.max(at, select("#", ...))))
        end
    end

    local function moved(...)
        if select("#", ...) == 3 and select(2, ...) == nil then return nil, nil, nil, (select(3, ...)) end
        return ...
    end
    function complete.gets(self, key)
        if type(key) == "table" then return library.gets(self, key) end
        return moved(library.gets(self, key))
    end

    local direct = {}
    for _, name in ipairs(pipelined) do
        direct[name] = complete[name]
        complete[name] = function(self, ...)
            local queue = type(self) == "table" and rawget(self, "_reqs")
            if not queue or not self.sock or name == "get" and type((...)) == "table" then
                return direct[name](self, ...)
            end
            local call = { name, select("#", ...), ... }
            if joins[name] and type(call[4]) == "table" then call[4] = rules.joined(call[4]) end
            queue[#queue + 1] = call
            return 1
        end
    end

    function complete.init_pipeline(self, n)
        if self._reqs then return "already init pipeline" end
        if n and type(n) ~= "number" then return "bad n arg: number expected, but got " .. type(n) end
        self._reqs = {}
        return nil
    end

    function complete.cancel_pipeline(self)
        self._reqs = nil
    end

    function complete.commit_pipeline(self)
        local queue = rawget(self, "_reqs")
        self._reqs = nil
        if not queue then return nil, "no pipeline" end
        local sock = self.sock
        if not sock then return nil, "not initialized" end
        if #queue == 0 then return nil, "no more cmds" end
        if not sock:getreusedtimes() then return nil, "closed" end
        local results = {}
        for i, call in ipairs(queue) do
            results[i] = { direct[call[1]](self, unpack(call, 3, 2 + call[2])) }
        end
        return results, nil
    end

    return complete
end

return _M
