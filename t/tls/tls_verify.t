use lib 't/lib';
use TestEnv;
use TestCerts;
use Test::Nginx::Socket::Lua;

our $Certs      = TestCerts::dir();
our $HttpConfig = TestEnv::head(
    tests => 4,
    tls   => [qw( good cn expired notyet revoked other self deep )],
    # the newest that every ngx_lua offers by default
    http  => 'lua_ssl_protocols TLSv1.2;',
);

run_tests();

__DATA__

=== TEST 1: chains that hold, and chains that do not
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local function verify(name, ...)
                local m = kit.connect(tls.web[name])
                tls.show(name, m:sslhandshake(...))
                kit.show("close", m:close())
            end
            for _, name in ipairs{ "good", "expired", "notyet", "other", "self", "deep" } do
                verify(name, nil, "memcached.test", true)
            end
            verify("other", false, nil, true)
            verify("good", false, "memcached.test", "yes")
            verify("good", nil, nil, true)
        }
    }
--- request
GET /t
--- response_body
good: "session"
close: 1
expired: nil, "10: certificate has expired"
close: nil, "closed"
notyet: nil, "9: certificate is not yet valid"
close: nil, "closed"
other: nil, "21: unable to verify the first certificate"
close: nil, "closed"
self: nil, "18: self-signed certificate"
close: nil, "closed"
deep: nil, "20: unable to get local issuer certificate"
close: nil, "closed"
other: nil, "21: unable to verify the first certificate"
close: nil, "closed"
good: true
close: 1
good: "session"
close: 1
--- grep_error_log eval: qr/\[[a-z]+\] \d+#\d+: \*\d+ lua ssl.*?, client: 127.0.0.1/
--- grep_error_log_out eval
qr/\A\[error\] \S+ \S+ lua ssl certificate verify error: \(10: certificate has expired\), client: 127.0.0.1
\[error\] \S+ \S+ lua ssl certificate verify error: \(9: certificate is not yet valid\), client: 127.0.0.1
\[error\] \S+ \S+ lua ssl certificate verify error: \(21: unable to verify the first certificate\), client: 127.0.0.1
\[error\] \S+ \S+ lua ssl certificate verify error: \(18: self-signed certificate\), client: 127.0.0.1
\[error\] \S+ \S+ lua ssl certificate verify error: \(20: unable to get local issuer certificate\), client: 127.0.0.1
\[error\] \S+ \S+ lua ssl certificate verify error: \(21: unable to verify the first certificate\), client: 127.0.0.1
\z/
--- no_error_log
[alert]



=== TEST 2: nothing is verified unless asked for
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, name in ipairs{ "good", "expired", "notyet", "other", "self", "deep", "revoked" } do
                local m = kit.connect(tls.web[name])
                tls.show(name, m:sslhandshake(nil, "no.test"))
                kit.show("close", m:close())
                m = kit.connect(tls.web[name])
                tls.show(name, m:sslhandshake(false, "no.test", false))
                m:close()
            end
        }
    }
--- request
GET /t
--- response_body eval
CORE::join '', map { qq{$_: "session"\nclose: 1\n$_: true\n} } qw( good expired notyet other self deep revoked )
--- no_error_log
[error]
[alert]



=== TEST 3: the host name
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local function verify(cert, name)
                local m = kit.connect(tls.web[cert])
                tls.show(name, m:sslhandshake(nil, name, true))
                kit.show("close", m:close())
            end
            verify("good", "memcached.test")
            verify("good", "MemCached.TEST")
            verify("good", "any.wild.test")
            verify("cn", "cn.test")
            verify("good", "no.test")
            verify("good", "sub.memcached.test")
            verify("good", "wild.test")
            verify("good", "a.b.wild.test")
            verify("good", "127.0.0.1")
            verify("cn", "memcached.test")
        }
    }
--- request
GET /t
--- response_body
memcached.test: "session"
close: 1
MemCached.TEST: "session"
close: 1
any.wild.test: "session"
close: 1
cn.test: "session"
close: 1
no.test: nil, "certificate host mismatch"
close: nil, "closed"
sub.memcached.test: nil, "certificate host mismatch"
close: nil, "closed"
wild.test: nil, "certificate host mismatch"
close: nil, "closed"
a.b.wild.test: nil, "certificate host mismatch"
close: nil, "closed"
127.0.0.1: nil, "certificate host mismatch"
close: nil, "closed"
memcached.test: nil, "certificate host mismatch"
close: nil, "closed"
--- grep_error_log eval: qr/\[[a-z]+\] \d+#\d+: \*\d+ lua ssl.*?, client: 127.0.0.1/
--- grep_error_log_out eval
my $line = '\[error\] \S+ \S+ lua ssl certificate does not match host "%s", client: 127.0.0.1';
my $all = CORE::join '', map { sprintf("$line\n", $_) }
    qw( no.test sub.memcached.test wild.test a.b.wild.test 127.0.0.1 memcached.test );
qr/\A$all\z/
--- no_error_log
[alert]



=== TEST 4: a bad chain is told before a bad name
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local m = kit.connect(tls.web.expired)
            tls.show("handshake", m:sslhandshake(nil, "no.test", true))
        }
    }
--- request
GET /t
--- response_body
handshake: nil, "10: certificate has expired"
--- error_log
lua ssl certificate verify error: (10: certificate has expired)
--- no_error_log
does not match host



=== TEST 5: lua_socket_log_errors off: the same results, no line
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    lua_socket_log_errors off;
    location = /t {
        content_by_lua_block {
            for _, name in ipairs{ "good", "expired", "other" } do
                local m = kit.connect(tls.web[name])
                tls.show(name, m:sslhandshake(nil, "memcached.test", true))
            end
            local m = kit.connect(tls.web.good)
            tls.show("name", m:sslhandshake(nil, "no.test", true))
        }
    }
--- request
GET /t
--- response_body
good: "session"
expired: nil, "10: certificate has expired"
other: nil, "21: unable to verify the first certificate"
name: nil, "certificate host mismatch"
--- no_error_log
[error]
[alert]



=== TEST 6: what is trusted, per location and inherited
--- http_config eval: "lua_ssl_trusted_certificate $::Certs/otherca.pem;" . $::HttpConfig
--- config
    location = /none {
        content_by_lua_block { kit.try() }
    }
    location /server {
        lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
        location = /server/inherits { content_by_lua_block { kit.try() } }
        location = /server/both {
            lua_ssl_trusted_certificate $TEST_NGINX_CERTS/bothca.pem;
            content_by_lua_block { kit.try() }
        }
    }
    location = /t {
        content_by_lua_block {
            function kit.try()
                for _, name in ipairs{ "good", "other" } do
                    local m = kit.connect(tls.web[name])
                    tls.show(name, m:sslhandshake(false, "memcached.test", true))
                    m:close()
                end
            end
            for _, path in ipairs{ "/none", "/server/inherits", "/server/both", "/none" } do
                ngx.say(path)
                ngx.say(kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/none
good: nil, "21: unable to verify the first certificate"
other: true
/server/inherits
good: true
other: nil, "21: unable to verify the first certificate"
/server/both
good: true
other: true
/none
good: nil, "21: unable to verify the first certificate"
other: true
--- error_log
lua ssl certificate verify error: (21: unable to verify the first certificate)
--- no_error_log
[alert]



=== TEST 7: nothing is trusted by default
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, name in ipairs{ "good", "self", "expired" } do
                local m = kit.connect(tls.web[name])
                tls.show(name, m:sslhandshake(nil, "memcached.test", true))
            end
        }
    }
--- request
GET /t
--- response_body
good: nil, "20: unable to get local issuer certificate"
self: nil, "18: self-signed certificate"
expired: nil, "20: unable to get local issuer certificate"
--- error_log
lua ssl certificate verify error: (20: unable to get local issuer certificate)
--- no_error_log
[alert]



=== TEST 8: the verify depth
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /default { content_by_lua_block { kit.try() } }
    location = /0 { lua_ssl_verify_depth 0; content_by_lua_block { kit.try() } }
    location = /1 { lua_ssl_verify_depth 1; content_by_lua_block { kit.try() } }
    location = /2 { lua_ssl_verify_depth 2; content_by_lua_block { kit.try() } }
    location /deep {
        lua_ssl_verify_depth 3;
        location = /deep/er { content_by_lua_block { kit.try() } }
    }
    location = /t {
        content_by_lua_block {
            function kit.try()
                local m = kit.connect(tls.web.good)
                tls.show("good", m:sslhandshake(false, "memcached.test", true))
                m = kit.connect(tls.web.deep)
                tls.show("deep", m:sslhandshake(false, "memcached.test", true))
            end
            for _, path in ipairs{ "/default", "/0", "/1", "/2", "/deep/er" } do
                ngx.say(path, "\n", kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/default
good: true
deep: nil, "20: unable to get local issuer certificate"
/0
good: true
deep: nil, "20: unable to get local issuer certificate"
/1
good: true
deep: nil, "20: unable to get local issuer certificate"
/2
good: true
deep: true
/deep/er
good: true
deep: true
--- error_log
lua ssl certificate verify error: (20: unable to get local issuer certificate)
--- no_error_log
[alert]



=== TEST 9: revocation lists
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/bothca.pem;
    location = /none { content_by_lua_block { kit.try() } }
    location = /list {
        lua_ssl_crl $TEST_NGINX_CERTS/crl.pem;
        content_by_lua_block { kit.try() }
    }
    location = /t {
        content_by_lua_block {
            function kit.try()
                for _, name in ipairs{ "good", "revoked", "other" } do
                    local m = kit.connect(tls.web[name])
                    tls.show(name, m:sslhandshake(false, "memcached.test", true))
                end
                local m = kit.connect(tls.web.revoked)
                tls.show("not asked", m:sslhandshake(false, "memcached.test"))
            end
            for _, path in ipairs{ "/none", "/list" } do
                ngx.say(path, "\n", kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/none
good: true
revoked: true
other: true
not asked: true
/list
good: true
revoked: nil, "23: certificate revoked"
other: nil, "3: unable to get certificate CRL"
not asked: true
--- error_log
lua ssl certificate verify error: (23: certificate revoked)
--- no_error_log
[alert]



=== TEST 10: after a failure the object connects again
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local m = kit.connect(tls.web.expired)
            tls.show("expired", m:sslhandshake(nil, "memcached.test", true))
            kit.show("get", m:get("k"))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("reused", m:get_reused_times())
            kit.show("close", m:close())
            kit.show("connect", m:connect("127.0.0.1", tls.web.good))
            kit.show("reused", m:get_reused_times())
            tls.show("good", m:sslhandshake(nil, "memcached.test", true))
            kit.show("says", tls.ask(m))
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("in step, plain", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
expired: nil, "10: certificate has expired"
get: nil, nil, "closed"
set_keepalive: nil, "closed"
reused: nil, "closed"
close: nil, "closed"
connect: 1
reused: 0
good: "session"
says: "memcached.test TLSv1.2"
connect: 1
in step, plain: "yes"
--- error_log
lua ssl certificate verify error: (10: certificate has expired)
--- no_error_log
[alert]



=== TEST 11: a session made without verification does not pass for a verified one
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local function visit(name, session, host, verify)
                local m = kit.connect(tls.web[name])
                local function closed(...) m:close() return ... end
                return closed(m:sslhandshake(session, host, verify))
            end
            local lax = visit("other", nil, "memcached.test", false)
            kit.show("untrusted", visit("other", lax, "memcached.test", true))
            lax = visit("good", nil, "memcached.test", false)
            kit.show("wrong name", visit("good", lax, "no.test", true))
            tls.show("trusted", visit("good", lax, "memcached.test", true))
        }
    }
--- request
GET /t
--- response_body
untrusted: nil, "21: unable to verify the first certificate"
wrong name: nil, "certificate host mismatch"
trusted: "session"
--- error_log
lua ssl certificate does not match host "no.test"
--- no_error_log
[alert]
