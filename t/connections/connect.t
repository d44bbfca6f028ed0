use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

our $HasIPv6 = eval {
    require IO::Socket::IP;
    IO::Socket::IP->new(LocalHost => "::1", Listen => 1);
};

run_tests();

__DATA__

=== TEST 1: TCP, unix, IPv6, port as a string
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("tcp", m:connect("127.0.0.1", $TEST_NGINX_MEMCACHED_PORT), kit.in_step(m))
            m:close()
            kit.show("port as a string", m:connect("127.0.0.1", "$TEST_NGINX_MEMCACHED_PORT"), kit.in_step(m))
            m:close()
            kit.show("unix", m:connect("unix:$TEST_NGINX_MEMCACHED_SOCK"), kit.in_step(m))
            m:close()
            kit.show("other loopback address", m:connect("127.0.0.2", $TEST_NGINX_UNUSED_PORT))
            kit.show("count", select("#", m:connect("127.0.0.1", $TEST_NGINX_MEMCACHED_PORT)))
        }
    }
--- request
GET /t
--- response_body
tcp: 1, "yes"
port as a string: 1, "yes"
unix: 1, "yes"
other loopback address: nil, "connection refused"
count: 1
--- error_log
connect() failed (111: Connection refused)



=== TEST 2: options: absent, nil, empty, all of them
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local function try(label, ...)
                kit.show(label, m:connect(...))
                kit.show("  in step", kit.in_step(m))
                m:close()
            end
            try("nil", "127.0.0.1", kit.port, nil)
            try("empty", "127.0.0.1", kit.port, {})
            try("pool", "127.0.0.1", kit.port, { pool = "p" })
            try("pool as a number", "127.0.0.1", kit.port, { pool = 15 })
            try("pool_size", "127.0.0.1", kit.port, { pool_size = 5 })
            try("backlog", "127.0.0.1", kit.port, { backlog = 5 })
            try("backlog 0", "127.0.0.1", kit.port, { pool = "q", backlog = 0 })
            try("all", "127.0.0.1", kit.port, { pool = "r", pool_size = 5, backlog = 5 })
            try("nil fields", "127.0.0.1", kit.port, { pool = nil, pool_size = nil })
            try("unknown field", "127.0.0.1", kit.port, { nonsense = 1 })
            try("unix with options", "unix:$TEST_NGINX_MEMCACHED_SOCK", { pool = "u" })
            try("unix with empty options", "unix:$TEST_NGINX_MEMCACHED_SOCK", {})
        }
    }
--- request
GET /t
--- response_body
nil: 1
  in step: "yes"
empty: 1
  in step: "yes"
pool: 1
  in step: "yes"
pool as a number: 1
  in step: "yes"
pool_size: 1
  in step: "yes"
backlog: 1
  in step: "yes"
backlog 0: 1
  in step: "yes"
all: 1
  in step: "yes"
nil fields: 1
  in step: "yes"
unknown field: 1
  in step: "yes"
unix with options: 1
  in step: "yes"
unix with empty options: 1
  in step: "yes"
--- no_error_log
[error]



=== TEST 3: arguments that raise
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local function try(label, ...)
                local text = kit.raise_text(m.connect, m, ...)
                kit.show(label, text:match("^bad argument.-%((.*)%)$") or text)
            end
            try("nothing")
            try("nil host", nil)
            try("table as host", {}, 1)
            try("true as host", true, 1)
            try("port missing", "127.0.0.1")
            try("port nil", "127.0.0.1", nil)
            try("port true", "127.0.0.1", true)
            try("port table", "127.0.0.1", {})
            try("port no number", "127.0.0.1", "http")
            try("pool table", "127.0.0.1", kit.port, { pool = {} })
            try("pool true", "127.0.0.1", kit.port, { pool = true })
            try("pool_size 0", "127.0.0.1", kit.port, { pool_size = 0 })
            try("pool_size negative", "127.0.0.1", kit.port, { pool_size = -1 })
            try("pool_size table", "127.0.0.1", kit.port, { pool_size = {} })
            try("pool_size string", "127.0.0.1", kit.port, { pool_size = "x" })
            try("backlog negative", "127.0.0.1", kit.port, { backlog = -1 })
            try("backlog string", "127.0.0.1", kit.port, { backlog = "x" })
            try("too many", "127.0.0.1", kit.port, {}, 4)
            kit.show("connects after all", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
nothing: "ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen 1"
nil host: "string expected, got nil"
table as host: "string expected, got table"
true as host: "string expected, got boolean"
port missing: "returned nil, \"missing the port number\""
port nil: "returned nil, \"missing the port number\""
port true: "returned nil, \"missing the port number\""
port table: "returned nil, \"missing the port number\""
port no number: "returned nil, \"missing the port number\""
pool table: "bad \"pool\" option type: table"
pool true: "bad \"pool\" option type: boolean"
pool_size 0: "bad \"pool_size\" option value: 0"
pool_size negative: "bad \"pool_size\" option value: -1"
pool_size table: "bad \"pool_size\" option type: table"
pool_size string: "bad \"pool_size\" option type: string"
backlog negative: "bad \"backlog\" option value: -1"
backlog string: "returned 1"
too many: "ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen 5"
connects after all: 1
in step: "yes"
--- no_error_log
[alert]



=== TEST 4: ports out of range
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for _, port in ipairs{ 0, -1, 65536, 100000, "0", "-1", "65536", 1e9 } do
                kit.show(tostring(port), kit.raise_text(m.connect, m, "127.0.0.1", port))
            end
            kit.show("options that are no table", kit.raises(m.connect, m, "127.0.0.1", kit.port, "x"))
            m:close()
            kit.show("number as options", kit.raises(m.connect, m, "127.0.0.1", kit.port, 5))
            m:close()
            kit.show("connects after all", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
0: "returned nil, \"connection refused\""
-1: "returned nil, \"bad port number: -1\""
65536: "returned nil, \"bad port number: 65536\""
100000: "returned nil, \"bad port number: 100000\""
0: "returned nil, \"connection refused\""
-1: "returned nil, \"bad port number: -1\""
65536: "returned nil, \"bad port number: 65536\""
1000000000: "returned nil, \"bad port number: 1000000000\""
options that are no table: "returned 1"
number as options: "returned 1"
connects after all: 1
in step: "yes"
--- no_error_log
[alert]



=== TEST 5: refused
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("connect", m:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT))
            kit.show("again", m:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT))
            kit.show("close", m:close())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("connects without close", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
            kit.show("refused while connected", m:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT))
            kit.show("get", m:close())
        }
    }
--- request
GET /t
--- response_body
connect: nil, "connection refused"
again: nil, "connection refused"
close: nil, "closed"
set_keepalive: nil, "closed"
get_reused_times: nil, "closed"
connects without close: 1
in step: "yes"
refused while connected: nil, "connection refused"
get: nil, "closed"
--- error_log
connect() failed (111: Connection refused)



=== TEST 6: refused, and nothing is logged
--- http_config eval: $::HttpConfig
--- config
    lua_socket_log_errors off;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("connect", m:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT))
            kit.show("unix", m:connect("unix:/nonexistent/sock"))
            kit.show("get", m:get("k"))
            local srv = kit.fake(function() end)
            assert(m:connect("127.0.0.1", srv.port))
            m:set_timeout(30)
            kit.show("timeout", m:get("k"))
            kit.show("after it", m:get("k"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
connect: nil, "connection refused"
unix: nil, "no such file or directory"
get: nil, nil, "closed"
timeout: nil, nil, "timeout"
after it: nil, nil, "closed"
--- no_error_log
[error]



=== TEST 7: unix sockets that do not answer
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("missing", m:connect("unix:/nonexistent/sock"))
            local path = os.tmpname()
            kit.show("no socket", m:connect("unix:" .. path))
            os.remove(path)
            kit.show("directory", m:connect("unix:/tmp"))
            kit.show("connect", m:connect("unix:$TEST_NGINX_MEMCACHED_SOCK"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
missing: nil, "no such file or directory"
no socket: nil, "connection refused"
directory: nil, "connection refused"
connect: 1
in step: "yes"
--- error_log
connect() to unix:/nonexistent/sock failed (2: No such file or directory)



=== TEST 8: unix addresses that are none
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("empty path", m:connect("unix:"))
            local ok, err = m:connect("unix:/" .. string.rep("x", 200))
            kit.show("path too long", ok, (err:gsub("x+", "x")))
            kit.show("port with a unix path", kit.raises(m.connect, m, "unix:$TEST_NGINX_MEMCACHED_SOCK", 5))
            m:close()
            kit.show("in step", m:connect("unix:$TEST_NGINX_MEMCACHED_SOCK"), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
empty path: nil, "failed to parse host name \"unix:\": no path in the unix domain socket"
path too long: nil, "failed to parse host name \"unix:/x\": too long path in the unix domain socket"
port with a unix path: "returned 1"
in step: 1, "yes"
--- no_error_log
[alert]



=== TEST 9: connect timeout: a full backlog
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen{ backlog = 0 }
            for _ = 1, 4 do srv:knock() end
            local m = kit.new()
            m:set_timeout(100)
            local ms, ok, err = kit.timed(m.connect, m, "127.0.0.1", srv.port)
            kit.show("connect", ok, err, ms >= 95 and ms < 400)
            m:set_timeouts(150, 5000, 5000)
            ms, ok, err = kit.timed(m.connect, m, "127.0.0.1", srv.port)
            kit.show("set_timeouts", ok, err, ms >= 145 and ms < 450)
            kit.show("get", m:get("k"))
            kit.show("set_keepalive", m:set_keepalive())
            srv:close()
            m:set_timeout(1000)
            kit.show("connects after all", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
connect: nil, "timeout", true
set_timeouts: nil, "timeout", true
get: nil, nil, "closed"
set_keepalive: nil, "closed"
connects after all: 1
in step: "yes"
--- error_log
lua tcp socket connect timed out



=== TEST 10: connect timeout from the directive, named with the peer
--- http_config eval: $::HttpConfig
--- config
    lua_socket_connect_timeout 100ms;
    location = /t {
        content_by_lua_block {
            local srv = kit.listen{ backlog = 0, port = $TEST_NGINX_FAKE_PORT }
            for _ = 1, 4 do srv:knock() end
            local m = require("resty.memcached"):new()
            local ms, ok, err = kit.timed(m.connect, m, "127.0.0.1", srv.port)
            kit.show("connect", ok, err, ms >= 95 and ms < 400)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
connect: nil, "timeout", true
--- error_log eval
qr/lua tcp socket connect timed out, when connecting to 127\.0\.0\.1:\d+/



=== TEST 11: reconnect without close, after close, after an error
--- private: counts connections, and their reuse
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local before = kit.stat("curr_connections")
            for i = 1, 20 do
                assert(m:connect("127.0.0.1", kit.port))
                assert(m:set("k" .. i, i))
            end
            kit.show("one connection left", kit.eventually(function()
                return kit.stat("curr_connections") == before + 1 end))
            kit.show("in step", kit.in_step(m))
            kit.show("reused", m:get_reused_times())
            for _ = 1, 20 do
                assert(m:close())
                assert(m:connect("127.0.0.1", kit.port))
            end
            kit.show("in step", kit.in_step(m))
            kit.show("close", m:close())
            kit.show("close again", m:close())
            kit.show("none left", kit.eventually(function()
                return kit.stat("curr_connections") == before end))
            local srv = kit.replies("NOT_STORED\r\n", false)
            kit.show("connect elsewhere", m:connect("127.0.0.1", srv.port))
            kit.show("add", m:add("k", "v"))
            kit.show("closed by the peer", m:get("k"))
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
one connection left: true
in step: "yes"
reused: 0
in step: "yes"
close: 1
close again: nil, "closed"
none left: true
connect elsewhere: 1
add: nil, "NOT_STORED"
closed by the peer: nil, nil, "closed"
connect: 1
in step: "yes"
--- no_error_log
[alert]



=== TEST 12: IPv6
--- http_config eval
qq{
    $::HttpConfig
    server { listen [::1]:$ENV{TEST_NGINX_FAKE_PORT}; location / { return 200 "x"; } }
}
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("connect", m:connect("[::1]", $TEST_NGINX_FAKE_PORT))
            kit.show("send", m.sock:send("GET / HTTP/1.0\r\n\r\n"))
            kit.show("receive", (m.sock:receive()))
            kit.show("refused", m:connect("[::1]", $TEST_NGINX_UNUSED_PORT))
        }
    }
--- request
GET /t
--- response_body
connect: 1
send: 18
receive: "HTTP/1.1 200 OK"
refused: nil, "connection refused"
--- error_log
connect() failed (111: Connection refused)
--- skip_eval: 3: !$::HasIPv6
