use lib 't/lib';
use TestEnv;
use TestCerts;
use Test::Nginx::Socket::Lua;

# What cannot be shared goes over a connection of its own, by itself.

$ENV{TEST_NGINX_CERTS} = TestCerts::dir();
our $Tls        = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );
our $HttpConfig = TestEnv::head(
    multiplex => 2,
    http      => 'lua_ssl_protocols TLSv1.2;',
    init      => qq{
        kit.tls = $Tls
        -- how many connections to a port are in SYN_SENT
        function dialling(port)
            local n, wanted = 0, (" %%x+:%04X 02 "):format(port)
            for line in io.lines("/proc/net/tcp") do
                if line:find(wanted) then n = n + 1 end
            end
            return n
        end
    },
);

run_tests();

__DATA__

=== TEST 1: raw bytes
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local m, other = kit.connect(srv.port), kit.connect(srv.port)
            m:get("shared")
            kit.show("send", m.sock:send("version\r\n"))
            kit.show("connections", kit.eventually(function() return srv.accepted == 2 end))
            kit.show("others meanwhile", other:get("other"))
            kit.show("receive", m.sock:receive())
            kit.show("its commands follow", m:version(), other:version())
            kit.show("reused", m:get_reused_times())
            kit.show("keep", m:set_keepalive())
            kit.show("still", mux.open(srv))
            -- nothing to receive: the timeout is that of the object
            m = kit.connect(srv.port)
            m:set_timeout(40)
            kit.show("receive first", m.sock:receive())
            kit.show("then", m:get("k"))
            kit.show("others", other:get("other"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
send: 9
connections: true
others meanwhile: "other", "0"
receive: "VERSION 2"
its commands follow: "2", "1"
reused: 0
keep: 1
still: 2
receive first: nil, "timeout", ""
then: "k", "0"
others: "other", "0"
--- no_error_log
[alert]



=== TEST 2: quit, verbosity, stats, flush_all
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line == "quit" then c:close() return false end
                if line:match("^verbosity") or line:match("^flush_all") then return "OK\r\n" end
                if line == "stats settings" then return "STAT a " .. c.index .. "\r\nEND\r\n" end
                if line == "stats" then return "STAT b " .. c.index .. "\r\nEND\r\n" end
            end)
            local other = kit.connect(srv.port)
            other:get("k")
            srv.lines = {}
            local m = kit.connect(srv.port)
            kit.show("stats", m:stats())
            kit.show("stats settings", m:stats("settings"))
            kit.show("version", m:version())
            m:set_keepalive()
            m = kit.connect(srv.port)
            kit.show("flush_all", m:flush_all())
            m:set_keepalive()
            m = kit.connect(srv.port)
            m:init_pipeline()
            m:get("p")
            m:stats()
            kit.show("pipeline", m:commit_pipeline())
            m:set_keepalive()
            m = kit.connect(srv.port)
            kit.show("verbosity", m:verbosity(1))
            m:close()
            m = kit.connect(srv.port)
            kit.show("quit", m:quit())
            kit.show("after it", m:get("k"))
            kit.show("the others", other:get("k"))
            local shared = {}
            for _, line in ipairs(srv.lines) do
                if line:match("^1 ") then shared[#shared + 1] = line:sub(3) end
            end
            kit.show("shared", shared)
            srv:close()

            -- and with the real server
            m, other = kit.connect(), kit.connect()
            kit.show("settings", m:stats("settings")[1])
            kit.show("verbosity", m:verbosity(0), kit.in_step(m))
            kit.show("quit", m:quit(), m:set_keepalive())
            kit.show("other", kit.in_step(other))
        }
    }
--- request
GET /t
--- response_body_like eval
qr/^stats: \{"STAT b 2"\}, nil
stats settings: \{"STAT a 2"\}, nil
version: "2"
flush_all: 1
pipeline: \{\{"p", "0"\}, \{\{"STAT b 2"\}\}\}, nil
verbosity: 1
quit: 1
after it: nil, nil, "closed"
the others: "k", "0"
shared: \{"get k"\}
settings: "STAT maxbytes \d+"
verbosity: 1, "yes"
quit: 1, nil, "closed"
other: "yes"
$/
--- no_error_log
[alert]



=== TEST 3: TLS
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2;
    location = /t {
        content_by_lua_block {
            local memcs = {}
            for i = 1, 3 do
                local m = kit.connect(kit.tls)
                kit.show("handshake", m:sslhandshake(false))
                kit.show("reused", m:get_reused_times())
                kit.show("in step", kit.in_step(m))
                memcs[i] = m
            end
            for i = 1, 3 do kit.show("keep", memcs[i]:set_keepalive()) end
            local m = kit.connect(kit.tls)
            kit.show("again", m:sslhandshake(false), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
handshake: true
reused: 0
in step: "yes"
handshake: true
reused: 0
in step: "yes"
handshake: true
reused: 0
in step: "yes"
keep: 1
keep: 1
keep: 1
again: true, "yes"
--- no_error_log
[error]



=== TEST 4: a pipeline that is open stays
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:init_pipeline()
            m:set("p", "v")
            m:get("p")
            kit.show("raw", m.sock:send("version\r\n"), (m.sock:receive() or ""):match("^VERSION"))
            kit.show("commit", m:commit_pipeline())
            m = kit.connect()
            m:init_pipeline()
            m:get("p")
            kit.show("keep", m:set_keepalive())
            m:connect("127.0.0.1", kit.port)
            kit.show("commit", m:commit_pipeline())
        }
    }
--- request
GET /t
--- response_body
raw: 9, "VERSION"
commit: {{1}, {"v", "0"}}, nil
keep: 1
commit: {{"v", "0"}}, nil
--- no_error_log
[error]



=== TEST 5: a private connection that cannot be had
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local m, other = kit.connect(srv.port), kit.connect(srv.port)
            m:get("k")
            local listener = srv.fd
            require("ffi").C.tk_close(listener)
            srv.fd = nil
            kit.show("stats", m:stats("settings"))
            kit.show("then", m:get("k"))
            kit.show("others", other:get("k"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
stats: nil, "connection refused"
then: nil, nil, "closed"
others: "k", "0"
--- no_error_log
[alert]



=== TEST 6: writes that fail, with shared connections and with private ones
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local value = ("x"):rep(24 * 1024 * 1024)
            for _, n in ipairs{ 2, false } do
                local deaf = kit.fake(function() end)
                for _, pipelined in ipairs{ false, true } do
                    local m = kit.connect(deaf.port, nil, { multiplex = n })
                    m:set_timeouts(1000, 100, 3000)
                    if pipelined then m:init_pipeline() end
                    local ok, err = m:set("k", value)
                    if pipelined then ok, err = m:commit_pipeline() end
                    kit.show("timeout", ok, err)
                    kit.show("close", m:close())
                end
                deaf:close()
                for _, pipelined in ipairs{ false, true } do
                    local gone = mux.server(nil, { path = "/tmp/gone$TEST_NGINX_UNUSED_PORT.sock" })
                    local m = kit.new{ multiplex = n }
                    m:connect("unix:/tmp/gone$TEST_NGINX_UNUSED_PORT.sock")
                    m:get("k")
                    gone:close()
                    if pipelined then m:init_pipeline() end
                    local ok, err, more = m:get("k")
                    if pipelined then ok, err = m:commit_pipeline() end
                    kit.show("gone", ok, err, more)
                    kit.show("close", m:close())
                end
            end
        }
    }
--- request
GET /t
--- response_body
timeout: nil, "timeout"
close: 1
timeout: nil, "timeout"
close: 1
gone: nil, nil, "broken pipe"
close: 1
gone: nil, "broken pipe", nil
close: 1
timeout: nil, "timeout"
close: 1
timeout: nil, "timeout"
close: 1
gone: nil, nil, "broken pipe"
close: 1
gone: nil, "broken pipe", nil
close: 1
--- error_log
connect() to unix:



=== TEST 7: who asks for TLS on new connections never goes on without it
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2;
    location = /t {
        content_by_lua_block {
            -- all of them connect before the first one asks for TLS
            local memcs = {}
            for i = 1, 3 do memcs[i] = kit.connect(kit.tls) end
            for i = 1, 3 do
                local m = memcs[i]
                kit.show("reused", m:get_reused_times())
                if m:get_reused_times() == 0 then kit.show("handshake", m:sslhandshake(false)) end
                kit.show("in step", kit.in_step(m))
            end
            -- a server that has answered without it is known to be used so
            local first, second = kit.connect(), kit.connect()
            kit.show("not used yet", first:get_reused_times(), second:get_reused_times())
            kit.show("in step", kit.in_step(first))
            kit.show("used", kit.connect():get_reused_times() > 0)
            -- what TLS answers is no answer
            local plain = kit.connect(kit.tls, { pool = "other" })
            local _, _, err = plain:get("k")
            kit.show("an error", err ~= nil)
            kit.show("again", kit.connect(kit.tls, { pool = "other" }):get_reused_times())
        }
    }
--- request
GET /t
--- response_body
reused: 0
handshake: true
in step: "yes"
reused: 0
handshake: true
in step: "yes"
reused: 0
handshake: true
in step: "yes"
not used yet: 0, 0
in step: "yes"
used: true
an error: true
again: 0
--- no_error_log
[alert]



=== TEST 8: an object that waits for a shared connection is busy connecting
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen{ backlog = 0 }
            for _ = 1, 4 do srv:knock() end
            local before = dialling(srv.port)
            local m = kit.new()
            m:set_timeout(200)
            local t = ngx.thread.spawn(function() return m:connect("127.0.0.1", srv.port) end)
            kit.show("dialled", dialling(srv.port) - before)
            kit.show("get", m:get("k"))
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("send", m.sock:send("version\r\n"))
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("the first", ngx.thread.wait(t))
            kit.show("given up", kit.eventually(function() return dialling(srv.port) == before end))
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
dialled: 1
get: nil, nil, "socket busy connecting"
connect: nil, "socket busy connecting"
send: nil, "socket busy connecting"
get_reused_times: 0
set_keepalive: nil, "socket busy connecting"
close: nil, "socket busy connecting"
the first: true, nil, "timeout"
given up: true
get_reused_times: nil, "closed"
connect: 1
in step: "yes"
--- error_log
lua tcp socket connect timed out



=== TEST 9: busy reading before the command leaves and after, busy writing while it cannot
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                c:line()
                ngx.sleep(0.08)
                c:send("VALUE k 0 5\r\nfirst\r\nEND\r\n")
            end)
            local m = kit.connect(srv.port)
            local t = ngx.thread.spawn(function() return m:get("k") end)
            kit.show("at once", m:get("k2"))
            ngx.sleep(0.01)
            kit.show("then", m:get("k2"))
            kit.show("the first", ngx.thread.wait(t))
            srv:close()

            srv = kit.listen()
            m = kit.connect(srv.port)
            m:set_timeouts(1000, 150, 1000)
            local big = string.rep("x", 16 * 1024 * 1024)
            t = ngx.thread.spawn(function() return m:set("k", big) end)
            ngx.sleep(0.02)
            kit.show("get", m:get("k2"))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("the first", ngx.thread.wait(t))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
at once: nil, nil, "socket busy reading"
then: nil, nil, "socket busy reading"
the first: true, "first", "0"
get: nil, nil, "socket busy writing"
set_keepalive: nil, "socket busy writing"
the first: true, nil, "timeout"
--- error_log
lua tcp socket write timed out



=== TEST 10: a further connection that does not come about is given up in time
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen{ backlog = 0 }
            local m, other = kit.new(), kit.new()
            m:set_timeouts(200, 2000, 2000)
            other:set_timeouts(200, 2000, 2000)
            kit.show("connect", m:connect("127.0.0.1", srv.port))
            local c = srv:accept()
            for _ = 1, 4 do srv:knock() end
            local before = dialling(srv.port)
            local t = ngx.thread.spawn(function() return m:get("k") end)
            ngx.sleep(0)
            kit.show("connect", other:connect("127.0.0.1", srv.port))
            local t2 = ngx.thread.spawn(function() return other:get("l") end)
            kit.show("dialled", kit.eventually(function() return dialling(srv.port) == before + 1 end))
            kit.show("given up", kit.eventually(function() return dialling(srv.port) == before end, 1.5))
            c:line()
            c:send("END\r\n")
            c:line()
            c:send("END\r\n")
            kit.show("the others", ngx.thread.wait(t))
            kit.show("go on", ngx.thread.wait(t2))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
connect: 1
connect: 1
dialled: true
given up: true
the others: true, nil, nil, nil
go on: true, nil, nil, nil
--- no_error_log
[alert]
