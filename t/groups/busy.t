# A group of which one connection is busy is as a connection that is busy: close, set_keepalive and
# connect fail, and change nothing. Bad arguments of set_keepalive raise, and change nothing either.

use strict;
use warnings;

use lib 't/lib';

use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head(
    http => "upstream one { server 127.0.0.1:$ENV{TEST_NGINX_FAKE_PORT}; }",
    init => q{
        -- A group with a server that answers `get` when it is told to, and its object, which has asked.
        function busy()
            local srv = kit.listen{ port = FAKE }
            srv:serve(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    if line == "get slow" then
                        srv.asked = true
                        while not srv.go and not srv.stopped do ngx.sleep(0.002) end
                        c:send("VALUE slow 0 5\r\nvalue\r\n")
                    end
                    c:send("END\r\n")
                end
            end)
            local m = kit.new()
            assert(m:connect("one"))
            local t = ngx.thread.spawn(m.get, m, "slow")
            assert(kit.eventually(function() return srv.asked end))
            return srv, m, t
        end
    } . "FAKE = $ENV{TEST_NGINX_FAKE_PORT}\n",
);

run_tests();

__DATA__

=== TEST 1: while a command waits
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv, m, t = busy()
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("connect", m:connect("one"))
            kit.show("connect to a server", m:connect("127.0.0.1", kit.port))
            kit.show("get", m:get("k"))
            srv.go = true
            kit.show("the first", ngx.thread.wait(t))
            kit.show("get", m:get("k"))
            kit.show("connections", srv.accepted)
            kit.show("close", m:close())
            kit.show("get", m:get("k"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set_keepalive: nil, "socket busy reading"
close: nil, "socket busy reading"
connect: nil, "socket busy reading"
connect to a server: nil, "socket busy reading"
get: nil, nil, "socket busy reading"
the first: true, "value", "0"
get: nil, nil, nil
connections: 1
close: 1
get: nil, nil, "closed"
--- no_error_log
[alert]



=== TEST 2: bad arguments of set_keepalive
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for _, connected in ipairs{ false, true } do
                assert(m:connect("one"))
                local srv, t
                if connected then
                    srv, m, t = busy()
                    srv.go = true
                    ngx.thread.wait(t)
                end
                kit.show("timeout", kit.raise_text(m.set_keepalive, m, {}))
                kit.show("pool_size", kit.raise_text(m.set_keepalive, m, 1000, 0))
                kit.show("pool_size", kit.raise_text(m.set_keepalive, m, 1000, true))
                kit.show("too many", kit.raise_text(m.set_keepalive, m, 1, 2, 3))
                if connected then kit.show("get", m:get("k")) srv:close() end
                kit.show("fine", m:set_keepalive(1000, 2))
            end
        }
    }
--- request
GET /t
--- response_body
timeout: "bad argument #1 to 'setkeepalive' (number expected, got table)"
pool_size: "bad argument #2 to 'setkeepalive' (bad \"pool_size\" option value: 0)"
pool_size: "bad argument #2 to 'setkeepalive' (number expected, got boolean)"
too many: "expecting 1 to 3 arguments (including the object), but got 4"
fine: 1
timeout: "bad argument #1 to 'setkeepalive' (number expected, got table)"
pool_size: "bad argument #2 to 'setkeepalive' (bad \"pool_size\" option value: 0)"
pool_size: "bad argument #2 to 'setkeepalive' (number expected, got boolean)"
too many: "expecting 1 to 3 arguments (including the object), but got 4"
get: nil, nil, nil
fine: 1
--- no_error_log
[error]
