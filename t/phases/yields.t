use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: operations inside metamethods and iterators
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            m:set("n", 1)
            local function get() return (m:get("k")) end
            local t = setmetatable({}, {
                __index = get, __newindex = get, __call = get, __concat = get, __unm = get,
                __add = get, __lt = get, __le = get, __eq = get,
            })
            local u = setmetatable({}, getmetatable(t))
            kit.show("__index", t.x)
            t.x = 1
            kit.show("__call", t())
            kit.show("__concat", t .. "x")
            kit.show("__unm", -t)
            kit.show("__add", t + 1)
            kit.show("__lt", t < u)
            kit.show("__le", t <= u)
            kit.show("__eq", t == u)
            local out = {}
            for v in function() local v = m:incr("n", 1) if v ~= "5" then return v end end do
                out[#out + 1] = v
            end
            kit.show("iterator", out)
            kit.show("cached", setmetatable({}, { __index = function(self, k)
                rawset(self, k, get())
                return rawget(self, k)
            end }).k)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
__index: "v"
__call: "v"
__concat: "v"
__unm: "v"
__add: "v"
__lt: true
__le: true
__eq: true
iterator: {"2", "3", "4"}
cached: "v"
in step: "yes"
--- no_error_log
[error]



=== TEST 2: where nothing can yield, each operation raises
--- private: a connection is made each time
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local boundary = "attempt to yield across C%-call boundary"
            local before = kit.stat("curr_connections")
            local function said(f, ...)
                local ok, err = pcall(f, ...)
                return ok and "returned" or tostring(err):match(boundary) or err
            end
            local function sort(f)
                return said(table.sort, { 3, 1, 2 }, function(a, b) f() return a < b end)
            end
            local srv = kit.fake(function(c) while c:line() do end end)
            local m = kit.connect()
            kit.show("get", sort(function() m:get("k") end))
            m = kit.connect()
            kit.show("set", sort(function() m:set("k", "v") end))
            m = kit.connect()
            kit.show("multi get", sort(function() m:get({ "a", "b" }) end))
            m = kit.connect()
            kit.show("version", sort(function() m:version() end))
            m = kit.connect()
            kit.show("commit", sort(function()
                m:init_pipeline()
                m:get("k")
                m:commit_pipeline()
            end))
            m = kit.connect()
            kit.show("sock receive", sort(function() m.sock:receive() end))
            m = kit.new()
            kit.show("connect", sort(function() m:connect("127.0.0.1", kit.port) end))
            m = kit.connect()
            kit.show("gsub", said(string.gsub, "abc", "b", function() return (m:get("k")) end))
            m = kit.connect()
            kit.show("load", said(loadstring, ""), said(load, function() m:get("k") end))
            m = kit.connect()
            package.preload.fetched = function() return (m:get("k")) end
            kit.show("require", said(require, "fetched"))
            m = kit.connect()
            kit.show("tostring", said(tostring, setmetatable({}, { __tostring = function()
                return (m:get("k")) end })))
            m = nil
            srv:close()
            kit.show("in step", kit.in_step(kit.connect()))
            collectgarbage()
            collectgarbage()
            kit.show("closed", kit.eventually(function()
                return kit.stat("curr_connections") <= before + 1
            end))
        }
    }
--- request
GET /t
--- response_body
get: "attempt to yield across C-call boundary"
set: "attempt to yield across C-call boundary"
multi get: "attempt to yield across C-call boundary"
version: "attempt to yield across C-call boundary"
commit: "attempt to yield across C-call boundary"
sock receive: "attempt to yield across C-call boundary"
connect: "attempt to yield across C-call boundary"
gsub: "attempt to yield across C-call boundary"
load: "returned", "returned"
require: "attempt to yield across C-call boundary"
tostring: "returned"
in step: "yes"
closed: true
--- no_error_log
[alert]



=== TEST 3: what needs no waiting works there
--- whole: commands have to be sent at once
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "sort" })
            kit.in_step(m)
            m:set_keepalive()
            local function sort(f)
                local out
                table.sort({ 3, 1, 2 }, function(a, b) out = out or kit.vals(f()) return a < b end)
                return out
            end
            m = kit.new()
            kit.show("connect from the pool", sort(function()
                return m:connect("127.0.0.1", kit.port, { pool = "sort" })
            end))
            kit.show("get_reused_times", sort(function() return m:get_reused_times() end))
            kit.show("set_timeout", sort(function() return m:set_timeout(1000) end))
            kit.show("no keys", sort(function() return m:get({}) end))
            kit.show("queue", sort(function() m:init_pipeline() return m:get("k") end))
            kit.show("cancel", sort(function() return m:cancel_pipeline() end))
            kit.show("in step", kit.in_step(m))
            kit.show("set_keepalive", sort(function() return m:set_keepalive() end))
            kit.show("close", sort(function() return m:close() end))
            kit.show("commit nothing", sort(function() return m:commit_pipeline() end))
            kit.show("no port", sort(function() return m:connect("127.0.0.1") end))
            kit.show("no address", sort(function() return m:connect("a:b:c", 1) end))
            kit.show("no such socket", sort(function() return m:connect("unix:/nonexistent/sock") end))
            kit.show("unix", sort(function() return m:connect("unix:$TEST_NGINX_MEMCACHED_SOCK") end))
            kit.show("send", sort(function() return m.sock:send("version\r\n") end))
            kit.show("receive", m.sock:receive() ~= nil)
            m:close()
            kit.show("closed get", sort(function() return m:get("k") end))
            kit.show("closed set", sort(function() return m:set("k", "v") end))
            kit.show("closed version", sort(function() return m:version() end))
            kit.show("closed receive", sort(function() return m.sock:receive() end))
        }
    }
--- request
GET /t
--- response_body
connect from the pool: "1"
get_reused_times: "1"
set_timeout: "1"
no keys: "{}, nil"
queue: "1"
cancel: "(none)"
in step: "yes"
set_keepalive: "1"
close: "nil, \"closed\""
commit nothing: "nil, \"no pipeline\""
no port: "nil, \"missing the port number\""
no address: "nil, \"failed to parse host name \\"a:b:c\\": invalid port\""
no such socket: "nil, \"no such file or directory\""
unix: "1"
send: "9"
receive: true
closed get: "nil, nil, \"closed\""
closed set: "nil, \"closed\""
closed version: "nil, \"closed\""
closed receive: "nil, \"closed\""
--- error_log
attempt to send data on a closed socket



=== TEST 4: coroutines: one object in several, abandoned, with errors
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            for i = 1, 6 do m:set("k" .. i, "v" .. i) end
            local function walker(from)
                return coroutine.wrap(function()
                    for i = from, 6, 2 do coroutine.yield((m:get("k" .. i))) end
                end)
            end
            local odd, even = walker(1), walker(2)
            kit.show("in turns", odd(), even(), odd(), even(), odd(), even())

            local made = coroutine.wrap(function()
                return kit.connect(nil, { pool = "made" })
            end)()
            kit.show("made in a coroutine", kit.in_step(made), made:set_keepalive())

            local co = coroutine.create(function()
                m:get("k1")
                error("on purpose")
            end)
            local ok, err = coroutine.resume(co)
            kit.show("an error", ok, err:match("on purpose"), coroutine.status(co))
            kit.show("in step", kit.in_step(m))

            local abandoned = coroutine.create(function()
                local mine = kit.connect(nil, { pool = "abandoned" })
                mine:get("k")
                coroutine.yield("half way")
                mine:set_keepalive()
            end)
            kit.show("abandoned", coroutine.resume(abandoned))
            local threads, wrong = {}, 0
            for i = 1, 10 do
                threads[i] = ngx.thread.spawn(function()
                    local values = coroutine.wrap(function()
                        local mine = kit.connect(nil, { pool = "nested" })
                        for n = 1, 5 do
                            mine:set("c" .. i, n)
                            coroutine.yield((mine:get("c" .. i)))
                        end
                        mine:set_keepalive()
                        return "done"
                    end)
                    for n = 1, 5 do
                        if values() ~= tostring(n) then wrong = wrong + 1 end
                        coroutine.yield()
                    end
                    return values()
                end)
            end
            for i = 1, 10 do
                local _, res = ngx.thread.wait(threads[i])
                if res ~= "done" then wrong = wrong + 1 end
            end
            kit.show("in threads", wrong)
            kit.show("status", coroutine.status(abandoned))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
in turns: "v1", "v2", "v3", "v4", "v5", "v6"
made in a coroutine: "yes", 1
an error: false, "on purpose", "dead"
in step: "yes"
abandoned: true, "half way"
in threads: 0
status: "suspended"
in step: "yes"
--- no_error_log
[error]



=== TEST 5: pcall and error handlers around operations that wait
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            local depth = 0
            local function deep(n)
                if n == 0 then return m:get("k") end
                local ok, v, flags = pcall(deep, n - 1)
                depth = depth + 1
                return v, flags
            end
            kit.show("deep", deep(30))
            kit.show("depth", depth)
            local ok, err = xpcall(function()
                m:get("k")
                error({ code = 7 })
            end, function(e) return e.code end)
            kit.show("xpcall", ok, err)
            kit.show("a transform that raises after a wait", pcall(function()
                local n = kit.connect(nil, nil, { key_transform = { function(k)
                    m:get("k")
                    error("refused", 0)
                end, function(k) return k end } })
                return n:get("k")
            end))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
deep: "v", "0"
depth: 30
xpcall: false, 7
a transform that raises after a wait: false, "refused"
in step: "yes"
--- no_error_log
[error]
