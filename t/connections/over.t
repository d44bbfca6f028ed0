use lib 't/lib';
use TestEnv;
use TestCerts;
use Test::Nginx::Socket::Lua;

# Operations that are over when a large value was sent in part: the server never gets the rest, so
# that it stores nothing, whatever it does later. Over plain connections and by TLS.

our @Large = qw( -I 16m -m 256 );
our $Plain = TestEnv::start_memcached( args => [@Large] );
our $Tls   = TestEnv::start_memcached( args => [ @{ TestCerts::memcached_args('good') }, @Large ] );
our $HttpConfig = TestEnv::head(
    skip => 'the reference goes on sending',
    http => 'lua_socket_log_errors off;',
    init => qq{
        servers = {
            { name = "plain", port = $Plain, pid = @{[ TestEnv::Memcached::pid($Plain) ]} },
            { name = "tls", port = $Tls, pid = @{[ TestEnv::Memcached::pid($Tls) ]}, tls = true },
        }
        VALUE = ("late"):rep(3 * 1024 * 1024)

        function connect(server)
            local m = kit.connect(server.port, { pool = server.name })
            if server.tls then assert(m:sslhandshake(false)) end
            return m
        end

        -- Calls f while the server has stopped; afterwards it goes on. What it has then.
        function while_stopped(server, f)
            local kill = require("ffi").C.tk_kill
            local m = connect(server)
            assert(m:set("k", "old"))
            local others = { connect(server), connect(server) }
            kill(server.pid, 19)
            ngx.sleep(0.02)
            local result = f(others[1], others[2])
            kill(server.pid, 18)
            ngx.sleep(0.25)
            local value, _, err = m:get("k")
            if err then value = connect(server):get("k") end
            return result, value
        end
    },
);

run_tests();

__DATA__

=== TEST 1: a light thread that is killed while it sends
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, server in ipairs(servers) do
                kit.show(server.name, while_stopped(server, function(m)
                    local t = ngx.thread.spawn(m.set, m, "k", VALUE)
                    ngx.sleep(0.02)
                    return ngx.thread.kill(t)
                end))
                -- with its object used again
                kit.show(server.name, while_stopped(server, function(m)
                    local t = ngx.thread.spawn(m.set, m, "k", VALUE)
                    ngx.sleep(0.02)
                    ngx.thread.kill(t)
                    return (select(3, m:get("k")))
                end))
            end
        }
    }
--- request
GET /t
--- response_body
plain: 1, "old"
plain: "closed", "old"
tls: 1, "old"
tls: "closed", "old"
--- no_error_log
[alert]



=== TEST 2: a timeout while it is sent
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, server in ipairs(servers) do
                kit.show(server.name, while_stopped(server, function(m)
                    m:set_timeouts(1000, 50, 1000)
                    return (select(2, m:set("k", VALUE)))
                end))
                kit.show(server.name, while_stopped(server, function(m)
                    m:set_timeouts(1000, 50, 1000)
                    m:init_pipeline()
                    m:set("other", VALUE)
                    m:set("k", "late")
                    return (select(2, m:commit_pipeline()))
                end))
            end
        }
    }
--- request
GET /t
--- response_body
plain: "timeout", "old"
plain: "timeout", "old"
tls: "timeout", "old"
tls: "timeout", "old"
--- no_error_log
[alert]



=== TEST 3: the request ends, or its client goes
--- http_config eval: $::HttpConfig
--- config
    location = /set {
        lua_check_client_abort on;
        content_by_lua_block {
            local m = connect(servers[tonumber(ngx.var.arg_server)])
            kit.shared.connected = true
            kit.eventually(function() return kit.shared.stopped end)
            if ngx.var.arg_how == "exit" then
                ngx.thread.spawn(m.set, m, "k", VALUE)
                ngx.sleep(0.02)
                return ngx.exit(200)
            end
            m:set("k", VALUE)
        }
    }
    location = /t {
        content_by_lua_block {
            for i, server in ipairs(servers) do
                for _, how in ipairs{ "exit", "abort" } do
                    kit.shared.connected, kit.shared.stopped = nil, nil
                    local path = "/set?server=" .. i .. "&how=" .. how
                    local secs = how == "abort" and 0.3 or nil
                    local t = ngx.thread.spawn(kit.http, $TEST_NGINX_SERVER_PORT, path, secs)
                    kit.eventually(function() return kit.shared.connected end)
                    kit.show(server.name, while_stopped(server, function()
                        kit.shared.stopped = true
                        ngx.thread.wait(t)
                        ngx.sleep(0.02)
                        return how
                    end))
                end
            end
        }
    }
--- request
GET /t
--- response_body
plain: "exit", "old"
plain: "abort", "old"
tls: "exit", "old"
tls: "abort", "old"
--- no_error_log
[alert]



=== TEST 4: raw bytes of a light thread that is killed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, server in ipairs(servers) do
                kit.show(server.name, while_stopped(server, function(m)
                    local t = ngx.thread.spawn(m.sock.send, m.sock,
                        { "set k 0 0 ", #VALUE, "\r\n", VALUE, "\r\n" })
                    ngx.sleep(0.02)
                    return ngx.thread.kill(t)
                end))
            end
        }
    }
--- request
GET /t
--- response_body
plain: 1, "old"
tls: 1, "old"
--- no_error_log
[alert]
