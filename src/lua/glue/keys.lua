-- Keys as the native functions take them: text, and whether to escape it. The default transform is
-- theirs to apply. Another one is called here, before anything is sent, because it may yield or
-- raise.
local _, glue = ...

local escape_uri = ngx.escape_uri
local error, rawget, type = error, rawget, type

-- Of a transform only the first result counts.
function glue.wire_key(self, key)
    local escape = self.escape_key
    if escape == escape_uri then
        if type(key) == "string" then
            return key, true
        end
        return escape_uri(key), false
    end
    return (escape(key)), false
end

-- The keys of a list are escaped natively if they are strings as they stand.
function glue.wire_keys(self, keys, count)
    local escape = self.escape_key
    if escape == escape_uri then
        local plain = true
        for i = 1, count do
            if type(keys[i]) ~= "string" or rawget(keys, i) == nil then
                plain = false
                break
            end
        end
        if plain then
            return keys, true
        end
    end
    local wired = {}
    for i = 1, count do
        local key = escape(keys[i])
        local kind = type(key)
        if kind == "number" then
            key = "" .. key
        elseif kind ~= "string" then
            error("bad key argument (string or number expected, got " .. kind .. ")", 3)
        end
        wired[i] = key
    end
    return wired, false
end
