use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Clients that speak TLS.
our $HttpConfig = TestEnv::head(
    tls  => [qw( good second )],
    http => 'lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;',
    init => q{
        client = require "resty.memcached.client"
        memc = client.new{ server = "127.0.0.1:" .. tls.port, timeouts = 5000,
            tls = { server_name = "memcached.test" } }
    },
);

run_tests();

__DATA__

=== TEST 1: commands, pipelines, a connection that is used again
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.show("set", memc:set("k", "v"))
            kit.show("get", memc:get("k"))
            kit.show("pipeline", memc:pipeline(function(p) p:append("k", 2) p:get("k") end))
            local threads = {}
            for i = 1, 5 do threads[i] = ngx.thread.spawn(memc.get, memc, "k") end
            for i = 1, 5 do kit.show("at once", (select(2, ngx.thread.wait(threads[i])))) end
            local function total(c)
                for _, line in ipairs(c:stats()) do
                    local n = line:match("^STAT total_connections (%d+)")
                    if n then return tonumber(n) end
                end
            end
            local before = total(memc)
            for i = 1, 20 do memc:get("k") end
            kit.show("opened", total(memc) - before)
        }
    }
--- request
GET /t
--- response_body
set: 1
get: "v", "0"
pipeline: {{1}, {"v2", "0"}}, nil
at once: "v2"
at once: "v2"
at once: "v2"
at once: "v2"
at once: "v2"
opened: 0
--- no_error_log
[error]



=== TEST 2: certificates are verified, unless that is turned off
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local server = "127.0.0.1:" .. tls.port
            local other = client.new{ server = server, timeouts = 5000, tls = { server_name = "other.test" } }
            kit.show("another name", other:get("k"))
            kit.show("another name", other:set("k", 1))
            kit.show("another name", other:pipeline(function(p) p:get("k") end))
            local loose = client.new{ server = server, timeouts = 5000,
                tls = { server_name = "other.test", verify = false } }
            kit.show("not verified", loose:set("k", 1))
            local plain = client.new{ server = "127.0.0.1:" .. kit.port, timeouts = 5000, tls = true }
            kit.show("no TLS there", (select("#", plain:get("k"))))
        }
    }
--- request
GET /t
--- response_body
another name: nil, nil, "certificate host mismatch"
another name: nil, "certificate host mismatch"
another name: nil, "certificate host mismatch"
not verified: 1
no TLS there: 3
--- error_log
SSL_do_handshake() failed
