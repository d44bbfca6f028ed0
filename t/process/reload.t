use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

master_on();
workers(1);
run_tests();

__DATA__

=== TEST 1: a worker told to exit keeps no idle connection
--- private: counts connections
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local closed = {}
            local srv = kit.fake(function(c)
                while c:line() do c:send("VERSION " .. c.index .. "\r\n") end
                closed[c.index] = true
            end)
            local idle, active = kit.connect(srv.port), kit.connect(srv.port)
            kit.show("idle", idle:version(), idle:set_keepalive(0))
            kit.show("active", active:version())
            kit.reload()
            kit.show("exiting", kit.eventually(ngx.worker.exiting, 5))
            kit.show("the idle one goes", kit.eventually(function() return closed[1] end))
            kit.show("the active one works", active:version())
            kit.show("set_keepalive", active:set_keepalive(0))
            kit.show("and goes too", kit.eventually(function() return closed[2] end))
            local m = kit.connect(srv.port)
            kit.show("a new one", m:get_reused_times(), m:version())
            m:close()
            kit.show("in step", kit.in_step(kit.connect()))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
idle: "1", 1
active: "2"
exiting: true
the idle one goes: true
the active one works: "2"
set_keepalive: 1
and goes too: true
a new one: 0, "3"
in step: "yes"
--- no_error_log
[alert]



=== TEST 2: old workers leave soon, new ones start afresh
--- http_config eval: $::HttpConfig
--- config
    location = /idle {
        content_by_lua_block {
            for i = 1, 5 do
                local m = kit.connect(nil, { pool = "p" .. i })
                m:set_keepalive(0)
            end
            ngx.print(ngx.worker.pid())
        }
    }
    location = /t {
        content_by_lua_block {
            -- the server forgets closed connections when it comes to it
            local before
            kit.eventually(function()
                local last = before
                before = kit.stat("curr_connections")
                return before == last
            end)
            kit.http($TEST_NGINX_SERVER_PORT, "/idle")
            kit.show("idle", kit.eventually(function()
                return kit.stat("curr_connections") == before + 5
            end))
            kit.reload()
            kit.eventually(ngx.worker.exiting, 5)
            kit.show("all gone", kit.eventually(function()
                return kit.stat("curr_connections") == before
            end))
            local other
            kit.eventually(function()
                other = tonumber(kit.http($TEST_NGINX_SERVER_PORT, "/idle"))
                return other and other ~= ngx.worker.pid()
            end)
            kit.show("another worker", other ~= ngx.worker.pid())
        }
    }
--- request
GET /t
--- response_body
idle: true
all gone: true
another worker: true
--- no_error_log
[alert]
