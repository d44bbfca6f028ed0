-- Faults for scripts/differential --plant: what each makes of the module's table of
-- methods. A comparison that notices none of them is worth nothing.

-- Gives the method's results, and what it was called with, to `change`.
local function altered(method, change)
    return function(module)
        local f = module[method]
        module[method] = function(self, ...)
            return change(f, self, ...)
        end
    end
end

return {
    ["flags are numbers"] = altered("get", function(f, ...)
        local value, flags, err = f(...)
        if err then return value, flags, err end
        return value, tonumber(flags)
    end),
    ["one nil for a miss"] = altered("get", function(f, ...)
        local value, flags, err = f(...)
        if value == nil and not err then return nil end
        return value, flags, err
    end),
    ["incr gives a number"] = altered("incr", function(f, ...)
        local value, err = f(...)
        if not value then return value, err end
        return tonumber(value)
    end),
    ["append prepends"] = altered("append", function(_, self, ...) return self:prepend(...) end),
    ["touch is not sent"] = altered("touch", function(f, self, key, exptime)
        if type(exptime) ~= "number" or rawget(self, "_reqs") then return f(self, key, exptime) end
        local value, _, err = self:get(key)
        if value then return 1 end
        return nil, err or "NOT_FOUND"
    end),
    ["set forgets the flags"] = altered("set", function(f, self, key, value, exptime, flags)
        if type(flags) == "number" and flags < 2 ^ 32 and flags % 1 == 0 then flags = nil end
        return f(self, key, value, exptime, flags)
    end),
    ["get is sent twice"] = altered("get", function(f, self, key)
        if type(key) == "string" and not rawget(self, "_reqs") then f(self, key) end
        return f(self, key)
    end),
    ["a list loses its last key"] = altered("gets", function(f, self, key)
        if type(key) == "table" and #key > 2 then key = { unpack(key, 1, #key - 1) } end
        return f(self, key)
    end),
    ["cas ignores the unique"] = altered("cas", function(_, self, key, value, _, exptime, flags)
        return self:set(key, value, exptime, flags)
    end),
    ["close returns true"] = altered("close", function(f, self)
        local ok, err = f(self)
        if ok then return true end
        return ok, err
    end),
    ["set_keepalive closes"] = altered("set_keepalive", function(f, self, ...)
        if select("#", ...) > 0 then return f(self, ...) end
        return self:close()
    end),
    ["cancel_pipeline does nothing"] = altered("cancel_pipeline", function() end),
    ["another word"] = altered("add", function(f, ...)
        local ok, err = f(...)
        if err == "NOT_STORED" then return nil, "EXISTS" end
        return ok, err
    end),
    ["a raised error is returned"] = altered("set", function(f, ...)
        local ok, result, err = pcall(f, ...)
        if not ok then return nil, result end
        return result, err
    end),
    ["long keys are cut"] = altered("set", function(f, self, key, ...)
        if type(key) == "string" and #key > 250 then key = key:sub(1, 250) end
        return f(self, key, ...)
    end),
    ["new is never an error"] = altered("new", function(f, self, opts)
        local ok, made, err = pcall(f, self, opts)
        if not ok or err then return f(self) end
        return made
    end),
}
