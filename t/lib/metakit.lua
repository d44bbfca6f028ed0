-- Scripted servers for meta commands: they say a version, and repeat opaques.

local _M = {}

-- A server whose replies are what `reply(line, index)` returns, with `#` for the opaque of the line;
-- `index` is the number of the connection. It says `version` to `version`, and `mn` to `mn`. What it
-- was asked is in `lines`; opaques are cut off.
function _M.server(version, reply, mn)
    local srv
    srv = kit.fake(function(c)
        while true do
            local line = c:line()
            if not line then return c:close() end
            local opaque = line:match(" (O%x+)")
            srv.lines[#srv.lines + 1] = line:gsub(" O%x+", "")
            local said
            if line == "version" then
                said = (type(version) == "function" and version(c.index) or version) .. "\r\n"
            elseif line == "mn" then
                said = (mn or "MN") .. "\r\n"
            else
                local len = line:match("^ms %S+ (%d+)")
                if len then c:read(tonumber(len) + 2) end
                said = reply and reply(line, c.index) or "HD #\r\n"
                said = said:gsub("#", opaque or "")
            end
            c:send(said)
        end
    end)
    srv.lines = {}
    return srv
end

-- What it was asked since the last time.
function _M.asked(srv)
    local text = table.concat(srv.lines, " | ")
    srv.lines = {}
    return text
end

return _M
