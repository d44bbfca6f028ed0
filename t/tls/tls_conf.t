use lib 't/lib';
use TestEnv;
use TestCerts;
use Test::Nginx::Socket::Lua;

our $Mutual = TestEnv::start_memcached(
    args => TestCerts::memcached_args(
        'good', 'ssl_verify_mode=2', "ssl_ca_cert=@{[ TestCerts::dir() ]}/ca.pem" ) );
our $HttpConfig = TestEnv::head( tls => [qw( good second )], init => qq{ tls.mutual = $Mutual } );

run_tests();

__DATA__

=== TEST 1: protocols, per location and inherited
--- http_config eval: "lua_ssl_protocols TLSv1.2 TLSv1.3;" . $::HttpConfig
--- config
    location = /http { content_by_lua_block { kit.try() } }
    location /outer {
        lua_ssl_protocols TLSv1.2;
        location = /outer/inner { content_by_lua_block { kit.try() } }
        location = /outer/own {
            lua_ssl_protocols TLSv1.3;
            content_by_lua_block { kit.try() }
        }
    }
    location = /t {
        content_by_lua_block {
            function kit.try()
                local m = kit.connect(tls.web.good)
                tls.show("handshake", m:sslhandshake(nil, "memcached.test"))
                ngx.say(tls.ask(m))
            end
            for _, path in ipairs{ "/http", "/outer/inner", "/outer/own" } do
                ngx.say(path, "\n", kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/http
handshake: "session"
memcached.test TLSv1.3
/outer/inner
handshake: "session"
memcached.test TLSv1.2
/outer/own
handshake: "session"
memcached.test TLSv1.3
--- no_error_log
[error]



=== TEST 2: no protocol in common
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_protocols TLSv1.1;
    lua_ssl_ciphers "DEFAULT:@SECLEVEL=0";
    location = /t {
        content_by_lua_block {
            local m = kit.connect(tls.port)
            kit.show("handshake", m:sslhandshake(nil, "memcached.test"))
            kit.show("close", m:close())
        }
    }
--- request
GET /t
--- response_body
handshake: nil, "handshake failed"
close: nil, "closed"
--- error_log
SSL_do_handshake() failed (SSL:



=== TEST 3: TLS 1.3 with memcached: what follows the handshake does not disturb
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_protocols TLSv1.3;
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            for i = 1, 3 do
                local m = kit.connect(tls.port)
                tls.show("handshake", m:sslhandshake(nil, "memcached.test", true))
                kit.show("reused", m:get_reused_times())
                -- Session tickets arrive here.
                ngx.sleep(0.03)
                kit.show("in step", kit.in_step(m))
                local value = ("t"):rep(500000)
                kit.show("set", m:set("thirteen", value))
                kit.show("get", m:get("thirteen") == value)
                kit.show("set_keepalive", m:set_keepalive())
                ngx.sleep(0.02)
            end
        }
    }
--- request
GET /t
--- response_body
handshake: "session"
reused: 0
in step: "yes"
set: 1
get: true
set_keepalive: 1
handshake: "session"
reused: 1
in step: "yes"
set: 1
get: true
set_keepalive: 1
handshake: "session"
reused: 2
in step: "yes"
set: 1
get: true
set_keepalive: 1
--- no_error_log
[error]



=== TEST 4: ciphers, per location and inherited
--- http_config eval: "lua_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;" . $::HttpConfig
--- config
    lua_ssl_protocols TLSv1.2;
    location = /http { content_by_lua_block { kit.try() } }
    location = /own {
        lua_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;
        content_by_lua_block { kit.try() }
    }
    location = /none {
        lua_ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;
        content_by_lua_block { kit.try() }
    }
    location = /t {
        content_by_lua_block {
            function kit.try()
                kit.show("cipher", tls.visit(tls.web.good, "/cipher", false))
            end
            for _, path in ipairs{ "/http", "/own", "/none" } do
                ngx.say(path, "\n", kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/http
cipher: true, "ECDHE-ECDSA-AES256-GCM-SHA384"
/own
cipher: true, "ECDHE-ECDSA-AES128-GCM-SHA256"
/none
cipher: nil, "handshake failed", nil, "closed"
--- error_log
SSL_do_handshake() failed (SSL:



=== TEST 5: lua_ssl_conf_command, per location and inherited
--- http_config eval: "lua_ssl_conf_command CipherString ECDHE-ECDSA-AES128-GCM-SHA256;" . $::HttpConfig
--- config
    lua_ssl_protocols TLSv1.2;
    location = /http { content_by_lua_block { kit.try() } }
    location = /own {
        lua_ssl_conf_command CipherString ECDHE-ECDSA-CHACHA20-POLY1305;
        content_by_lua_block { kit.try() }
    }
    location = /thirteen {
        lua_ssl_protocols TLSv1.3;
        lua_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;
        content_by_lua_block { kit.try() }
    }
    location = /t {
        content_by_lua_block {
            function kit.try()
                kit.show("cipher", tls.visit(tls.web.good, "/cipher", false))
            end
            for _, path in ipairs{ "/http", "/own", "/thirteen" } do
                ngx.say(path, "\n", kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/http
cipher: true, "ECDHE-ECDSA-AES128-GCM-SHA256"
/own
cipher: true, "ECDHE-ECDSA-CHACHA20-POLY1305"
/thirteen
cipher: true, "TLS_CHACHA20_POLY1305_SHA256"
--- no_error_log
[error]



=== TEST 6: client certificates
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local ssl = require "ngx.ssl"
            local function read(name)
                local file = assert(io.open("$TEST_NGINX_CERTS/" .. name))
                local text = file:read("*a")
                file:close()
                return text
            end
            local cert = assert(ssl.parse_pem_cert(read("client.pem")))
            local key = assert(ssl.parse_pem_priv_key(read("client.key")))
            local stranger = assert(ssl.parse_pem_cert(read("stranger.pem")))
            local m = kit.new()
            local sock = m.sock
            local function visit(label)
                assert(m:connect("127.0.0.1", tls.web.good))
                local first, err = tls.kind(m:sslhandshake(nil, "memcached.test"))
                kit.show(label, first, err or tls.ask(m, "/client"))
                m:close()
            end
            visit("none")
            kit.show("set", sock:setclientcert(cert, key))
            visit("set")
            visit("it stays")
            kit.show("one of two", sock:setclientcert(cert))
            kit.show("one of two", sock:setclientcert(nil, key))
            kit.show("strings", sock:setclientcert("a", "b"))
            kit.show("string key", sock:setclientcert(cert, "b"))
            visit("unchanged by errors")
            kit.show("not its key", sock:setclientcert(stranger, key))
            visit("wrong key")
            kit.show("unset", sock:setclientcert(nil, nil))
            visit("unset")
            kit.show("unset", sock:setclientcert())
            visit("another object", kit.new())
        }
    }
--- request
GET /t
--- response_body
none: "session", "NONE "
set: true
set: "session", "SUCCESS CN=a client"
it stays: "session", "SUCCESS CN=a client"
one of two: nil, "client certificate must be supplied with corresponding private key"
one of two: nil, "client certificate must be supplied with corresponding private key"
strings: nil, "bad cert arg: cdata expected, got string"
string key: nil, "bad pkey arg: cdata expected, got string"
unchanged by errors: "session", "SUCCESS CN=a client"
not its key: true
wrong key: nil, "ssl set client private key failed"
unset: true
unset: "session", "NONE "
unset: true
another object: "session", "NONE "
--- no_error_log
[error]



=== TEST 7: memcached that wants a client certificate
--- whole: the server closes before it has read all, so its alert may be lost
--- http_config eval: "lua_ssl_protocols TLSv1.2;" . $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local ssl = require "ngx.ssl"
            local function read(name)
                local file = assert(io.open("$TEST_NGINX_CERTS/" .. name))
                local text = file:read("*a")
                file:close()
                return text
            end
            local m = kit.new()
            assert(m.sock:setclientcert(assert(ssl.parse_pem_cert(read("client.pem"))),
                                        assert(ssl.parse_pem_priv_key(read("client.key")))))
            assert(m:connect("127.0.0.1", tls.mutual))
            tls.show("with", m:sslhandshake(nil, "memcached.test", true))
            kit.show("in step", kit.in_step(m))
            m:close()
            m = kit.connect(tls.mutual)
            kit.show("without", m:sslhandshake(nil, "memcached.test", true))
        }
    }
--- request
GET /t
--- response_body
with: "session"
in step: "yes"
without: nil, "handshake failed"
--- error_log
SSL_do_handshake() failed (SSL:



=== TEST 8: over a unix socket
--- http_config eval
$::HttpConfig . qq{
    server {
        listen unix:$ENV{TEST_NGINX_CERTS}/web.sock ssl;
        ssl_certificate $ENV{TEST_NGINX_CERTS}/good.pem;
        ssl_certificate_key $ENV{TEST_NGINX_CERTS}/good.key;
        location / { default_type text/plain; return 200 "\$ssl_server_name \$ssl_protocol"; }
    }
}
--- config
    lua_ssl_protocols TLSv1.2;
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            for i = 1, 2 do
                local m = kit.new()
                kit.show("connect", m:connect("unix:$TEST_NGINX_CERTS/web.sock"))
                tls.show("handshake", m:sslhandshake(nil, "memcached.test", true))
                kit.show("reused", m:get_reused_times())
                kit.show("says", tls.ask(m))
                kit.show("set_keepalive", m:set_keepalive())
            end
        }
    }
--- request
GET /t
--- response_body
connect: 1
handshake: "session"
reused: 0
says: "memcached.test TLSv1.2"
set_keepalive: 1
connect: 1
handshake: "session"
reused: 1
says: "memcached.test TLSv1.2"
set_keepalive: 1
--- no_error_log
[error]



=== TEST 9: in every phase that can wait
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /rewrite { rewrite_by_lua_block { kit.try() } content_by_lua_block { } }
    location = /access { access_by_lua_block { kit.try() } content_by_lua_block { } }
    location = /content { content_by_lua_block { kit.try() } }
    location = /coroutine { content_by_lua_block { coroutine.wrap(kit.try)() } }
    location = /timer {
        content_by_lua_block {
            local said
            ngx.timer.at(0, function() said = kit.once() end)
            kit.eventually(function() return said end)
            ngx.print(said)
        }
    }
    location = /sub { content_by_lua_block { ngx.print(ngx.location.capture("/content").body) } }
    location = /t {
        content_by_lua_block {
            function kit.once()
                local m = kit.connect(tls.port, { pool = "phases" .. math.random() })
                local first, err = tls.kind(m:sslhandshake(nil, "memcached.test", true))
                if not first then return err end
                return kit.in_step(m)
            end
            function kit.try() ngx.print(kit.once()) end
            for _, path in ipairs{ "/rewrite", "/access", "/content", "/coroutine", "/timer", "/sub" } do
                kit.show(path, kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/rewrite: "yes"
/access: "yes"
/content: "yes"
/coroutine: "yes"
/timer: "yes"
/sub: "yes"
--- no_error_log
[error]
