use lib 't/lib';
use TestEnv;
use DnsServer;
use Test::Nginx::Socket::Lua;

# How many connections there are, and what goes over them.

$ENV{TEST_NGINX_DNS_PORT} = DnsServer::start();

our $HttpConfig = TestEnv::head( multiplex => 2 );

run_tests();

__DATA__

=== TEST 1: sessions at once wait for the same connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local ready = {}
            local function session(i)
                local m = kit.connect(srv.port)
                local times = m:get_reused_times()
                local v = m:get("key" .. i)
                return v == "key" .. i, times, m:set_keepalive()
            end
            local r = mux.at_once(50, session)
            kit.show("right", mux.count(r, true), srv.accepted)
            kit.show("all waited for it", mux.count(r, function(_, _, times) return times == 0 end))
            r = mux.at_once(50, session)
            kit.show("right", mux.count(r, true), srv.accepted <= 2)
            kit.show("used before", mux.count(r, function(_, _, times) return times > 0 end))
            kit.show("kept", mux.count(r, function(_, _, _, kept) return kept == 1 end))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
right: 50, 1
all waited for it: 50
right: 50, true
used before: 50
kept: 50
--- no_error_log
[error]



=== TEST 2: the commands of a turn of the event loop are sent together
--- whole: counts writes
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 40 do memcs[i] = kit.connect(srv.port) end
            memcs[1]:get("first")
            local c = srv.conns[1]
            local before, bytes = c:segments(), c.total
            local r = mux.at_once(40, function(i) return memcs[i]:get("key" .. i) end)
            kit.show("right", mux.count(r, function(i, v) return v == "key" .. i end))
            kit.show("writes", c:segments() - before)
            kit.show("all of it", c.total - bytes == 9 * #"get key1\r\n" + 31 * #"get key10\r\n")
            before = c:segments()
            r = mux.at_once(40, function(i)
                local m = memcs[i]
                if i % 4 == 0 then return m:set("k" .. i, "v") end
                if i % 4 == 1 then return (m:get{ "a" .. i, "b" .. i }["a" .. i] or {})[1] end
                if i % 4 == 2 then return m:version() end
                m:init_pipeline()
                m:get("p" .. i)
                m:set("q" .. i, "v")
                return m:commit_pipeline()[1][1]
            end)
            kit.show("all kinds", mux.count(r, function(i, v)
                return v == (({ [0] = 1, "a" .. i, "1", "p" .. i })[i % 4])
            end), c:segments() - before)
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
right: 40
writes: 1
all of it: true
all kinds: 40, 1
connections: 1
--- no_error_log
[error]



=== TEST 3: further connections are opened while there is work in flight, up to the number
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 3;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 8 do memcs[i] = kit.connect(srv.port) end
            for i = 1, 8 do memcs[i]:get("one after the other") end
            kit.show("one is enough", srv.accepted)
            srv.held = true
            local threads = {}
            for i = 1, 8 do
                threads[i] = ngx.thread.spawn(function() return (memcs[i]:get("key" .. i)) end)
                ngx.sleep(0.01)
            end
            kit.show("while they wait", srv.accepted)
            srv.held = false
            local right = 0
            for i = 1, 8 do
                if select(2, ngx.thread.wait(threads[i])) == "key" .. i then right = right + 1 end
            end
            kit.show("right", right)
            local used = {}
            for _, line in ipairs(srv.lines) do used[line:match("^%d+")] = true end
            kit.show("used", used["1"], used["2"], used["3"], used["4"])
            srv:close()
        }
    }
--- request
GET /t
--- response_body
one is enough: 1
while they wait: 3
right: 8
used: true, true, true, nil
--- no_error_log
[error]



=== TEST 4: batches take turns on the connections
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 4 do memcs[i] = kit.connect(srv.port) end
            srv.held = true
            local t = ngx.thread.spawn(function() return memcs[1]:get("a") end)
            ngx.sleep(0.01)
            local u = ngx.thread.spawn(function() return memcs[2]:get("b") end)
            ngx.sleep(0.02)
            srv.held = false
            ngx.thread.wait(t)
            ngx.thread.wait(u)
            srv.lines = {}
            for n = 1, 10 do
                mux.at_once(4, function(i) return memcs[i]:get("turn" .. n .. i) end)
            end
            local batches, mixed = {}, 0
            for n = 1, 10 do
                local conns = {}
                for _, line in ipairs(srv.lines) do
                    local c = line:match("^(%d+) get turn" .. n .. "%d$")
                    if c then conns[c] = true end
                end
                local list = {}
                for c in pairs(conns) do list[#list + 1] = c end
                if #list ~= 1 then mixed = mixed + 1 end
                batches[list[1] or "?"] = (batches[list[1] or "?"] or 0) + 1
            end
            kit.show("a batch has one connection", mixed)
            kit.show("each", batches)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
a batch has one connection: 0
each: {1=5, 2=5}
--- no_error_log
[error]



=== TEST 5: how often it was used, for sessions of all kinds
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect()
            kit.show("the first", m:get_reused_times(), m:get("none"))
            kit.show("close", m:close(), m:get_reused_times())
            kit.show("get", m:get("k"))
            kit.show("close again", m:close())
            m = kit.connect()
            kit.show("the connection stays", m:get_reused_times() > 0)
            kit.show("keep", m:set_keepalive(), m:get_reused_times())
            kit.show("keep again", m:set_keepalive())
            m = kit.connect(nil, { pool = "other" })
            kit.show("another pool", m:get_reused_times(), m:set_keepalive())
            kit.show("the same pool", kit.connect(nil, { pool = "other" }):get_reused_times() > 0)
            m:connect(kit.unix)
            kit.show("unix", m:get_reused_times(), kit.in_step(m))
            m:connect(kit.unix)
            kit.show("unix", m:get_reused_times() > 0, kit.in_step(m))
            kit.show("a port as text", m:connect("127.0.0.1", tostring(kit.port)), m:get_reused_times() > 0)
        }
    }
--- request
GET /t
--- response_body
the first: 0, nil, nil, nil
close: 1, nil, "closed"
get: nil, nil, "closed"
close again: nil, "closed"
the connection stays: true
keep: 1, nil, "closed"
keep again: nil, "closed"
another pool: 0, 1
the same pool: true
unix: 0, "yes"
unix: true, "yes"
a port as text: 1, true
--- no_error_log
[alert]



=== TEST 6: connections are closed when unused for the time of set_keepalive
--- http_config eval: $::HttpConfig
--- config
    lua_socket_keepalive_timeout 80ms;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local m = kit.connect(srv.port)
            kit.show("v", m:get("v"))
            m:set_keepalive()
            kit.show("stays for a while", mux.open(srv))
            kit.show("goes", kit.eventually(function() return mux.open(srv) == 0 end))
            m = kit.connect(srv.port)
            kit.show("a new one", m:get_reused_times(), m:get("v"))
            m:set_keepalive(1000)
            ngx.sleep(0.2)
            kit.show("time of its own", mux.open(srv))
            m = kit.connect(srv.port)
            kit.show("used again", m:get_reused_times() > 0)
            m:set_keepalive(50)
            kit.show("less", kit.eventually(function() return mux.open(srv) == 0 end, 0.7))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
v: "v", "0"
stays for a while: 1
goes: true
a new one: 0, "v", "0"
time of its own: 1
used again: true
less: true
--- no_error_log
[error]



=== TEST 7: an operation of two light threads on one object
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            srv.held = true
            local m = kit.connect(srv.port)
            local t = ngx.thread.spawn(function() return m:get("k") end)
            ngx.sleep(0.01)
            kit.show("get", m:get("k2"))
            kit.show("set", m:set("k2", "v"))
            kit.show("multi-get", m:get{ "k2", "k3" })
            kit.show("version", m:version())
            m:init_pipeline()
            m:get("k2")
            kit.show("commit", m:commit_pipeline())
            kit.show("quit", m:quit())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            srv.held = false
            kit.show("the first", ngx.thread.wait(t))
            kit.show("what was sent", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "socket busy reading"
set: nil, "socket busy reading"
multi-get: nil, "socket busy reading"
version: nil, "socket busy reading"
commit: nil, "socket busy reading"
quit: nil, "socket busy reading"
set_keepalive: nil, "socket busy reading"
close: nil, "socket busy reading"
connect: nil, "socket busy reading"
the first: true, "k", "0"
what was sent: {"get k"}
--- no_error_log
[error]



=== TEST 8: a name is looked up for the connections that are to be opened
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 600ms;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs, threads = {}, {}
            for i = 1, 4 do
                memcs[i] = kit.new()
                threads[i] = ngx.thread.spawn(function()
                    return memcs[i]:connect("a.slow.test", srv.port), memcs[i]:get("k" .. i)
                end)
            end
            ngx.sleep(0.02)
            kit.show("killed", ngx.thread.kill(threads[1]), memcs[1]:get("k"))
            for i = 2, 4 do kit.show(i, ngx.thread.wait(threads[i])) end
            kit.show("connections", srv.accepted)
            local m = memcs[1]
            local ms, ok = kit.timed(m.connect, m, "a.slow.test", srv.port)
            kit.show("while there is one", ok, ms < 100, m:get_reused_times() > 0, m:get("k"))
            srv.conns[1]:close()
            ngx.sleep(0.02)
            kit.show("another one, with a command", (m:get("again")), srv.accepted)
            for _, name in ipairs{ "a.nx.test", "a.never.test" } do
                local r = mux.at_once(2, function()
                    local m = kit.new()
                    return m:connect(name, srv.port), select(2, m:connect(name, srv.port)), select(3, m:get("k"))
                end)
                for i = 1, 2 do kit.show(name, unpack(r[i], 1, 3)) end
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
killed: 1, nil, nil, "closed"
2: true, 1, "k2", "0"
3: true, 1, "k3", "0"
4: true, 1, "k4", "0"
connections: 1
while there is one: 1, true, true, "k", "0"
another one, with a command: "again", 2
a.nx.test: nil, "a.nx.test could not be resolved (3: Host not found)", "closed"
a.nx.test: nil, "a.nx.test could not be resolved (3: Host not found)", "closed"
a.never.test: nil, "a.never.test could not be resolved (110: Operation timed out)", "closed"
a.never.test: nil, "a.never.test could not be resolved (110: Operation timed out)", "closed"
--- no_error_log
[alert]
