-- Commands without a key, for a group of servers.
local _, glue = ...

local next = next

local group = glue.group

-- What is not for groups, or not yet.

for _, name in next, { "flush_all", "stats", "version", "verbosity", "quit" } do
    group[name] = function()
        return nil, "not for upstreams: " .. name
    end
end
