-- Objects whose commands go through a client (`resty.memcached.client`): what `kit.connect` gives to
-- suites while `scripts/test --client` runs. Each is an object that is never connected itself.

local client = require "resty.memcached.client"

local COMMANDS = { "get", "gets", "set", "add", "replace", "append", "prepend", "cas", "delete", "incr",
    "decr", "touch", "flush_all", "stats", "version", "verbosity", "gat", "gats", "meta_get", "meta_set",
    "meta_delete", "meta_arith" }
-- In an open pipeline these go to it.
local QUEUED = { get = true, set = true, add = true, replace = true, append = true, prepend = true,
    delete = true, incr = true, decr = true, touch = true, stats = true, verbosity = true, gat = true,
    gats = true, meta_get = true, meta_set = true, meta_delete = true, meta_arith = true }

local _M = {}

-- `memc`, a new object, by a client of this server. `opts` are those of connect, `new_opts` of new.
function _M.behind(memc, port, opts, new_opts)
    opts, new_opts = opts or {}, new_opts or {}
    local options = {
        server = { "127.0.0.1", port },
        timeouts = 5000,
        key_transform = new_opts.key_transform,
        codec = new_opts.codec,
        multiplex = new_opts.multiplex,
        pool = opts.pool and tostring(opts.pool),
        pool_size = opts.pool_size,
        backlog = opts.backlog,
    }
    local one, queue
    local function it()
        one = one or client.new(options)
        return one
    end
    for _, name in ipairs(COMMANDS) do
        local method = memc[name]
        memc[name] = function(self, key, ...)
            if queue and QUEUED[name] and type(key) ~= "table" then
                queue[#queue + 1] = { name, n = select("#", ...) + 1, key, ... }
                return method(self, key, ...)
            end
            local c = it()
            return c[name](c, key, ...)
        end
    end
    local init, cancel, commit = memc.init_pipeline, memc.cancel_pipeline, memc.commit_pipeline
    function memc:init_pipeline(...)
        local err = init(self, ...)
        if not err then queue = {} end
        return err
    end
    function memc:cancel_pipeline()
        queue = nil
        return cancel(self)
    end
    function memc:commit_pipeline()
        local commands = queue
        if not commands or #commands == 0 then
            queue = nil
            return commit(self)
        end
        self:cancel_pipeline()
        return it():pipeline(function(p)
            for _, command in ipairs(commands) do
                local name = command[1]
                p[name](p, unpack(command, 2, command.n + 1))
            end
        end)
    end
    function memc:set_timeouts(connect, send, read)
        options.timeouts, one = { connect = connect, send = send, read = read }, nil
        return 1
    end
    function memc:set_timeout(ms)
        return self:set_timeouts(ms, ms, ms)
    end
    function memc.set_keepalive() return 1 end
    function memc.close() return 1 end
    return memc
end

return _M
