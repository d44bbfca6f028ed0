use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head(
    tests => 4,
    tls   => [qw( good second other )],
    # the newest that every ngx_lua offers by default
    http  => 'lua_ssl_protocols TLSv1.2;',
);

run_tests();

__DATA__

=== TEST 1: what arrived before the handshake is no answer after it
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                c:line()
                c:send("VERSION plain\r\nVALUE k 0 6\r\nforged\r\nEND\r\n")
                tls.join(c, tls.port, function(_, _, record) return record end)
            end)
            for _, raw in ipairs{ false, true } do
                local m = kit.connect(srv.port)
                if raw then
                    m.sock:send("version\r\n")
                    kit.show("version", m.sock:receive())
                else
                    kit.show("version", m:version())
                end
                local ok = m:sslhandshake(false, "memcached.test")
                kit.show("forged", ok and m:get("k") == "forged")
                m:close()
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body_like eval
qr/\Aversion: (?:"plain"|nil, [^\n]*)\nforged: (?:false|nil)\nversion: "VERSION plain"\nforged: (?:false|nil)\n\z/
--- no_error_log
[alert]
[emerg]



=== TEST 2: verification that fails, a thousand times
--- whole: a thousand handshakes take too long
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    lua_socket_log_errors off;
    location = /t {
        content_by_lua_block {
            local seen = {}
            for i = 1, 500 do
                local m = kit.connect(tls.port)
                local said = kit.raises(m.sslhandshake, m, nil, "no.test", true)
                seen[said] = (seen[said] or 0) + 1
                m:close()
                m = kit.connect(tls.port)
                said = kit.raises(m.sslhandshake, m, false, "memcached.test", true)
                seen[said] = (seen[said] or 0) + 1
                m:close()
            end
            kit.show("wrong name", seen['returned nil, "certificate host mismatch"'])
            kit.show("right name", seen["returned true"])
        }
    }
--- request
GET /t
--- timeout: 20
--- response_body
wrong name: 500
right name: 500
--- no_error_log
[error]
[alert]



=== TEST 3: an error's number is its own
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local m = kit.connect(tls.web.other)
            kit.show("verify", m:sslhandshake(nil, "memcached.test", true))
            kit.show("closed", m:sslhandshake())
            m = kit.connect(kit.port)
            kit.show("plain", m:sslhandshake())
            kit.show("closed", m:sslhandshake())
            m = kit.connect(tls.web.good)
            kit.show("name", m:sslhandshake(nil, "no.test", true))
        }
    }
--- request
GET /t
--- response_body
verify: nil, "21: unable to verify the first certificate"
closed: nil, "closed"
plain: nil, "handshake failed"
closed: nil, "closed"
name: nil, "certificate host mismatch"
--- error_log
SSL_do_handshake() failed (SSL:
--- no_error_log
[alert]



=== TEST 4: server names that cannot be sent
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            for _, name in ipairs{ "", ("x"):rep(256), ("x"):rep(70000) } do
                local m = kit.connect(tls.web.good)
                kit.show(#name, m:sslhandshake(nil, name, true))
                -- Still open, and nothing of the attempt is left.
                tls.show("again", m:sslhandshake(nil, "memcached.test", true))
                kit.show("says", tls.ask(m))
                m:close()
            end
        }
    }
--- request
GET /t
--- response_body
0: nil, "SSL_set_tlsext_host_name failed"
again: "session"
says: "memcached.test TLSv1.2"
256: nil, "SSL_set_tlsext_host_name failed"
again: "session"
says: "memcached.test TLSv1.2"
70000: nil, "SSL_set_tlsext_host_name failed"
again: "session"
says: "memcached.test TLSv1.2"
--- no_error_log
[error]
[alert]



=== TEST 5: server names with control characters
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            for _, name in ipairs{ "memcached.test\0.evil.test", "memcached.test\0", "\0",
                                   "no.test\n2026/01/01 00:00:00 forged line" } do
                local m = kit.connect(tls.web.good)
                kit.show(#name, (m:sslhandshake(nil, name, true)))
                m:close()
            end
        }
    }
--- request
GET /t
--- response_body
25: nil
15: nil
1: nil
39: nil
--- no_error_log eval
[ qr/^2026\/01\/01/, qr/\x00/ ]



=== TEST 6: a session that is none
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local ffi = require "ffi"
            for _, junk in ipairs{ ffi.cast("void *", 8), ffi.new("char[64]"), ffi.new("void *"), 5LL, io.stdout,
                                   newproxy(true), coroutine.create(function() end) } do
                local m = kit.connect(tls.port)
                kit.raises(m.sslhandshake, m, junk, "memcached.test")
                m:close()
            end
            kit.show("in step", kit.in_step(tls.connect()))
        }
    }
--- request
GET /t
--- response_body
in step: "yes"
--- no_error_log
[alert]
[emerg]



=== TEST 7: pipelines larger than a record
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            -- memcached 1.6 does not come back to what OpenSSL holds for it: a
            -- command that shares a record with the end of a large one would wait.
            for _, shape in ipairs{ { 200, 300 }, { 2000, 30 }, { 100, 9000 }, { 5, 300000 } } do
                local m = tls.connect(nil, nil, "memcached.test")
                local n, size = shape[1], shape[2]
                local value = ("v"):rep(size)
                m:init_pipeline()
                for i = 1, n do
                    m:set("shape" .. i, value .. i)
                    m:get("shape" .. i)
                end
                local res, err = m:commit_pipeline()
                local right = 0
                for i = 1, n do
                    if res and type(res[2 * i]) == "table" and res[2 * i][1] == value .. i then
                        right = right + 1
                    end
                end
                kit.show(n .. " x " .. size, right, err)
                kit.show("in step", kit.in_step(m))
                m:close()
            end
        }
    }
--- request
GET /t
--- timeout: 30
--- response_body
200 x 300: 200, nil
in step: "yes"
2000 x 30: 2000, nil
in step: "yes"
100 x 9000: 100, nil
in step: "yes"
5 x 300000: 5, nil
in step: "yes"
--- no_error_log
[error]
[alert]



=== TEST 8: what arrives on an idle TLS connection
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_protocols TLSv1.2 TLSv1.3;
    location = /t {
        content_by_lua_block {
            local srv = tls.relay(tls.port, function(_, _, record) return record end)
            -- Session tickets of TLS 1.3 come after the handshake and are harmless.
            for i = 1, 3 do
                local m = kit.connect(srv.port)
                assert(m:sslhandshake(nil, "memcached.test"))
                m:set_keepalive()
                ngx.sleep(0.03)
                m = kit.connect(srv.port)
                assert(m:sslhandshake(nil, "memcached.test"))
                kit.show("in step", kit.in_step(m))
                m:set_keepalive()
            end
            -- The server hangs up on an idle one, or sends what nobody asked for.
            for _, how in ipairs{ "close", "reset", "send" } do
                for _, c in ipairs(srv.conns) do c[how](c, "junk that is no record") end
                ngx.sleep(0.03)
                local m = kit.connect(srv.port)
                assert(m:sslhandshake(nil, "memcached.test"))
                kit.show(how, kit.in_step(m))
                m:set_keepalive()
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
in step: "yes"
in step: "yes"
in step: "yes"
close: "yes"
reset: "yes"
send: "yes"
--- no_error_log
[error]
[alert]
