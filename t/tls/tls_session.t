use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head(
    tls  => [qw( good second )],
    # the newest that every ngx_lua offers by default
    http => 'lua_ssl_protocols TLSv1.2;',
);

run_tests();

__DATA__

=== TEST 1: the server name and the status request in the hello
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = tls.listener()
            local function hello(...)
                local m = kit.connect(srv.port)
                m:sslhandshake(...)
                local said = srv.hellos[#srv.hellos]
                ngx.say("name: ", tostring(said.name), ", status: ", tostring(said.status))
            end
            hello()
            hello(nil, nil, nil, nil)
            hello(nil, false)
            hello(nil, "memcached.test")
            hello(false, "Other-Name.TEST")
            hello(nil, "127.0.0.1")
            hello(nil, ("x"):rep(255))
            hello(nil, nil, true, true)
            hello(false, "memcached.test", false, true)
            hello(nil, nil, nil, 0)
            hello(nil, nil, nil, false)
            srv:close()
        }
    }
--- request
GET /t
--- response_body eval
CORE::join '', map { "name: $_\n" } 'nil, status: false', 'nil, status: false', 'nil, status: false',
    'memcached.test, status: false', 'Other-Name.TEST, status: false', '127.0.0.1, status: false',
    ('x' x 255) . ', status: false', 'nil, status: true', 'memcached.test, status: true',
    'nil, status: true', 'nil, status: false'
--- error_log
peer closed connection in SSL handshake



=== TEST 2: what a server sees of it
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.show("no name", tls.visit(tls.web.good))
            kit.show("name", tls.visit(tls.web.good, "/", nil, "memcached.test"))
            kit.show("another", tls.visit(tls.web.good, "/", false, "second.test"))
        }
    }
--- request
GET /t
--- response_body
no name: "session", " TLSv1.2"
name: "session", "memcached.test TLSv1.2"
another: true, "second.test TLSv1.2"
--- no_error_log
[error]



=== TEST 3: an OCSP response is sent when asked for, and its absence is no error
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function visit(name, ...)
                local stapled = false
                local srv = tls.relay(tls.web[name], function(c, way, record)
                    if tls.messages(record, c, way)[22] then stapled = true end
                    return record
                end)
                local result, text = tls.visit(srv.port, "/reused", ...)
                kit.show(name, result, text, stapled)
                srv:close()
            end
            visit("good", nil, "memcached.test", false, true)
            visit("good", nil, "memcached.test", false, false)
            visit("good", false, "memcached.test", false, true)
            visit("second", nil, "second.test", false, true)
        }
    }
--- request
GET /t
--- response_body
good: "session", ".", true
good: "session", ".", false
good: true, ".", true
second: "session", ".", false
--- no_error_log
[error]



=== TEST 4: a session saves the next connection the full handshake
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function visit(label, port, ...)
                kit.show(label, tls.visit(port, "/reused", ...))
            end
            local good = tls.web.good
            local m = kit.connect(good)
            local session = m:sslhandshake(nil, "memcached.test")
            kit.show("first", tls.ask(m, "/reused"))
            m:close()
            visit("with the session", good, session, "memcached.test")
            visit("and again", good, session, "memcached.test")
            visit("without", good, nil, "memcached.test")
            visit("false", good, false, "memcached.test")
            visit("true", good, true, "memcached.test")
            visit("of another server", tls.web.second, session, "memcached.test")
            m = kit.connect(good)
            local second = m:sslhandshake(session, "memcached.test")
            m:close()
            visit("of a resumed connection", good, second, "memcached.test")
            session, second, m = nil, nil, nil
            collectgarbage()
            collectgarbage()
            visit("collected", good)
        }
    }
--- request
GET /t
--- response_body
first: "."
with the session: "session", "r"
and again: "session", "r"
without: "session", "."
false: true, "."
true: "session", "."
of another server: "session", "."
of a resumed connection: "session", "r"
collected: "session", "."
--- no_error_log
[error]



=== TEST 5: a session from one request in the next
--- http_config eval: $::HttpConfig
--- config
    location = /visit {
        content_by_lua_block {
            local m = kit.connect(tls.web.good)
            kit.shared.session = m:sslhandshake(kit.shared.session, "memcached.test")
            ngx.print(tls.ask(m, "/reused"))
            m:set_keepalive(1)
            ngx.sleep(0.01)
        }
    }
    location = /t {
        content_by_lua_block {
            for i = 1, 3 do
                kit.show("visit", kit.http($TEST_NGINX_SERVER_PORT, "/visit"))
                collectgarbage()
            end
        }
    }
--- request
GET /t
--- response_body
visit: "."
visit: "r"
visit: "r"
--- no_error_log
[error]



=== TEST 6: a session that memcached itself resumes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local full = 0
            local srv = tls.relay(tls.port, function(c, way, record)
                -- Only a full handshake carries the certificate.
                if tls.messages(record, c, way)[11] then full = full + 1 end
                return record
            end)
            local session
            for i = 1, 4 do
                local m = kit.connect(srv.port)
                session = assert(m:sslhandshake(session, "memcached.test"))
                kit.show("in step", kit.in_step(m))
                m:close()
            end
            kit.show("full handshakes", full)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
in step: "yes"
in step: "yes"
in step: "yes"
in step: "yes"
full handshakes: 1
--- no_error_log
[error]
