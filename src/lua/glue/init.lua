-- The module and its objects.
local native, glue = ...

local escape_uri, unescape_uri = ngx.escape_uri, ngx.unescape_uri
local rawequal, setmetatable, type = rawequal, setmetatable, type

local check_phase, check_options = native.check_phase, native.check_options
local not_initialized = native.not_initialized
local MAX_CONNECTIONS = native.max_connections
local sock_metatable = glue.sock_metatable

local _M = { _VERSION = native.version }
local metatable = { __index = _M }

local function new(_, opts)
    check_phase()

    -- The fields from `GROUP` to `MULTIPLEX`, see fields.rs: one that is absent would be looked for
    -- in the metatable.
    local sock = { [GROUP] = false, false, 0, 0, 0, false, false, false, false }
    local escape_key, unescape_key = escape_uri, unescape_uri
    if opts then
        check_options(opts)
        local transform = opts.key_transform
        if transform then
            escape_key, unescape_key = transform[1], transform[2]
            if not escape_key or not unescape_key then
                return nil, "expecting key_transform = { escape, unescape } table"
            end
        end
        local multiplex = opts.multiplex
        if multiplex == false then
            sock[MULTIPLEX] = -1
        elseif multiplex ~= nil then
            if type(multiplex) ~= "number" or not (multiplex >= 1 and multiplex <= MAX_CONNECTIONS)
                or multiplex % 1 ~= 0 then
                return nil, "bad multiplex option: expecting false or an integer from 1 to "
                    .. MAX_CONNECTIONS
            end
            sock[MULTIPLEX] = multiplex
        end
        if opts.codec ~= nil then
            return glue.with_codec({
                sock = setmetatable(sock, sock_metatable),
                escape_key = escape_key,
                unescape_key = unescape_key,
            }, opts.codec)
        end
    end

    return setmetatable({
        sock = setmetatable(sock, sock_metatable),
        escape_key = escape_key,
        unescape_key = unescape_key,
    }, metatable)
end

_M.new = new

-- The method of a command with up to two arguments. Its body gets the `sock`, too, and the id of
-- its session, if it has had one. To `finish_*` the `sock` goes as well, so that it is not
-- collected while its command waits.
--
-- Bodies call native functions by name, because tracebacks have these names.
local function method(body)
    return function(self, first, second)
        local sock = self.sock
        if not sock then
            return nil, not_initialized(self, rawequal(self, _M))
        end
        return body(self, sock, sock[ID], first, second)
    end
end

local group = glue.group

-- A command with one key on a `sock` that has had no session: its group runs it, or it goes to the
-- open pipeline `requests`, if there is one, or the native function says that there is no
-- connection.
function glue.elsewhere(sock, requests, finish, start, key, escape, ...)
    if sock[GROUP] and not requests then
        return group.run(sock, finish, start, key, escape, ...)
    end
    return finish(sock, sock, start(requests or sock, key, escape, ...))
end

glue.module = _M
glue.new = new
glue.method = method
