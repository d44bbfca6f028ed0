# A connection of a group that its server closes while no command needs it is replaced: nothing was
# sent, so nothing has failed.

use strict;
use warnings;

use lib 't/lib';

use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head(
    http => "upstream two {
        lua_memcached_hash ketama;
        lua_memcached_failover off;
        server 127.0.0.1:$ENV{TEST_NGINX_FAKE_PORT} max_fails=1 fail_timeout=60s;
        server 127.0.0.1:$ENV{TEST_NGINX_MEMCACHED_PORT};
    }",
    init => "FAKE = $ENV{TEST_NGINX_FAKE_PORT}\n" . q{
        -- An object of the group, and a key of the server that is not memcached.
        function two()
            local m = kit.new()
            assert(m:connect("two"))
            for i = 1, 1000 do
                if m:server_of("key" .. i) == "127.0.0.1:" .. FAKE then
                    return m, "key" .. i
                end
            end
        end
    },
);

run_tests();

__DATA__

=== TEST 1: after a reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen{ port = FAKE }
            srv:serve(function(c)
                if c:line() then c:send("END\r\n") end
                c:close()
            end)
            local m, key = two()
            for _ = 1, 3 do
                kit.show("get", m:get(key))
                ngx.sleep(0.1)
            end
            local found, err = m:get{ key }
            kit.show("many", found and next(found), err)
            kit.show("connections", srv.accepted)
            kit.show("close", m:close())
            srv:close()
        }
    }
--- request
    GET /t
--- response_body
get: nil, nil, nil
get: nil, nil, nil
get: nil, nil, nil
many: nil, nil
connections: 4
close: 1
--- no_error_log
[warn]
