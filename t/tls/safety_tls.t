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

=== TEST 1: plain text never leaves through a pooled TLS connection, nor TLS through a plain one
--- http_config eval: $::HttpConfig
--- config
    location = /tls {
        content_by_lua_block {
            local m = kit.connect(kit.shared.port)
            local first, err = tls.kind(m:sslhandshake(nil, "memcached.test"))
            ngx.print(first or err, ", in step: ", kit.in_step(m), ", ", m:set_keepalive())
        }
    }
    location = /plain {
        content_by_lua_block {
            local m = kit.connect(kit.shared.port)
            ngx.print(m:version(), ", ", m:set_keepalive())
        }
    }
    location = /t {
        content_by_lua_block {
            local srv = tls.both(tls.port)
            kit.shared.port = srv.port
            for _, path in ipairs{ "/tls", "/plain", "/plain", "/tls", "/tls", "/plain" } do
                kit.show(path, kit.http($TEST_NGINX_SERVER_PORT, path))
            end
            kit.show("handshakes", srv.handshakes)
            kit.show("plain", srv.plain)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
/tls: "session, in step: yes, 1"
/plain: "plain, 1"
/plain: "plain, 1"
/tls: "session, in step: yes, 1"
/tls: "session, in step: yes, 1"
/plain: "plain, 1"
handshakes: 1
plain: 1
--- no_error_log
[error]
[alert]



=== TEST 2: code that shakes hands only on new connections
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = tls.both(tls.port)
            for i = 1, 4 do
                local m = kit.connect(srv.port)
                if m:get_reused_times() == 0 then
                    assert(m:sslhandshake(nil, "memcached.test"))
                end
                kit.show("in step", kit.in_step(m))
                kit.show("set_keepalive", m:set_keepalive())
            end
            kit.show("handshakes", srv.handshakes)
            kit.show("plain", srv.plain)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
in step: "yes"
set_keepalive: 1
in step: "yes"
set_keepalive: 1
in step: "yes"
set_keepalive: 1
in step: "yes"
set_keepalive: 1
handshakes: 1
plain: 0
--- no_error_log
[error]
[alert]



=== TEST 3: one pool name, a plain and a TLS server
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local opts = { pool = "mix" }
            for i = 1, 3 do
                local m = kit.connect(kit.port, opts)
                kit.show("plain", kit.in_step(m), m:set_keepalive())
                m = kit.connect(tls.port, opts)
                local first, err = tls.kind(m:sslhandshake(nil, "memcached.test"))
                kit.show("tls", first, err)
                kit.show("tls", kit.in_step(m), m:set_keepalive())
            end
        }
    }
--- request
GET /t
--- response_body
plain: "yes", 1
tls: "session", nil
tls: "yes", 1
plain: "yes", 1
tls: "session", nil
tls: "yes", 1
plain: "yes", 1
tls: "session", nil
tls: "yes", 1
--- no_error_log
[error]
[alert]



=== TEST 4: a connection of another server name
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function visit(name)
                local m = kit.connect(tls.web.good)
                assert(m:sslhandshake(nil, name))
                local id = tls.ask(m, "/id")
                kit.show(tostring(name), tls.ask(m), m:set_keepalive())
                return id
            end
            local a = visit("memcached.test")
            kit.show("found again", visit("memcached.test") == a)
            local b = visit("second.test")
            kit.show("found again", visit("second.test") == b)
            local c = visit(nil)
            kit.show("found again", visit(nil) == c)
            kit.show("apart", a ~= b, b ~= c, a ~= c)
            visit("second.test")
            visit("memcached.test")
        }
    }
--- request
GET /t
--- response_body
memcached.test: "memcached.test TLSv1.2", 1
memcached.test: "memcached.test TLSv1.2", 1
found again: true
second.test: "second.test TLSv1.2", 1
second.test: "second.test TLSv1.2", 1
found again: true
nil: " TLSv1.2", 1
nil: " TLSv1.2", 1
found again: true
apart: true, true, true
second.test: "second.test TLSv1.2", 1
memcached.test: "memcached.test TLSv1.2", 1
--- no_error_log
[error]
[alert]



=== TEST 5: an unverified connection does not pass for a verified one
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local function visit(label, cert, name, verify)
                local m = kit.connect(tls.web[cert])
                local first, err = m:sslhandshake(false, name, verify)
                kit.show(label, first, err)
                if first then
                    kit.show("says", tls.ask(m))
                    kit.show("set_keepalive", m:set_keepalive())
                end
            end
            visit("other CA, lax", "other", "memcached.test", false)
            visit("other CA, strict", "other", "memcached.test", true)
            visit("other name, lax", "second", "memcached.test", false)
            visit("other name, strict", "second", "memcached.test", true)
            visit("right name, strict", "second", "second.test", true)
            visit("other name again", "second", "memcached.test", true)
        }
    }
--- request
GET /t
--- response_body
other CA, lax: true, nil
says: "memcached.test TLSv1.2"
set_keepalive: 1
other CA, strict: nil, "21: unable to verify the first certificate"
other name, lax: true, nil
says: "memcached.test TLSv1.2"
set_keepalive: 1
other name, strict: nil, "certificate host mismatch"
right name, strict: true, nil
says: "second.test TLSv1.2"
set_keepalive: 1
other name again: nil, "certificate host mismatch"
--- error_log
lua ssl certificate verify error: (21: unable to verify the first certificate)
lua ssl certificate does not match host "memcached.test"



=== TEST 6: nor does a second handshake on one connection
--- http_config eval: $::HttpConfig
--- config
    lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
    location = /t {
        content_by_lua_block {
            local function twice(label, cert, name, verify)
                local m = kit.connect(tls.web[cert])
                assert(m:sslhandshake(nil, "memcached.test", false))
                kit.show(label, m:sslhandshake(false, name, verify))
                m:close()
            end
            twice("the same", "good", "memcached.test", false)
            twice("verified", "good", "memcached.test", true)
            twice("other CA", "other", "memcached.test", true)
            twice("other name", "good", "second.test", true)
        }
    }
--- request
GET /t
--- response_body
the same: true
verified: true
other CA: nil, "21: unable to verify the first certificate"
other name: nil, "certificate host mismatch"
--- error_log
lua ssl certificate verify error: (21: unable to verify the first certificate)
lua ssl certificate does not match host "second.test"



=== TEST 7: a connection that another location trusts
--- http_config eval: $::HttpConfig
--- config
    location = /other {
        lua_ssl_trusted_certificate $TEST_NGINX_CERTS/otherca.pem;
        content_by_lua_block { kit.try() }
    }
    location = /ours {
        lua_ssl_trusted_certificate $TEST_NGINX_CERTS/ca.pem;
        content_by_lua_block { kit.try() }
    }
    location = /revoking {
        lua_ssl_trusted_certificate $TEST_NGINX_CERTS/otherca.pem;
        lua_ssl_crl $TEST_NGINX_CERTS/crl.pem;
        content_by_lua_block { kit.try() }
    }
    location = /ciphers {
        lua_ssl_trusted_certificate $TEST_NGINX_CERTS/otherca.pem;
        lua_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;
        content_by_lua_block { kit.try() }
    }
    location = /t {
        content_by_lua_block {
            function kit.try()
                local m = kit.connect(tls.web.other)
                local first, err = m:sslhandshake(false, "memcached.test", true)
                ngx.print(first and tls.ask(m, "/cipher") or err)
                m:set_keepalive()
            end
            for _, path in ipairs{ "/other", "/ours", "/revoking", "/ciphers", "/other" } do
                kit.show(path, kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/other: "ECDHE-ECDSA-AES256-GCM-SHA384"
/ours: "21: unable to verify the first certificate"
/revoking: "3: unable to get certificate CRL"
/ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256"
/other: "ECDHE-ECDSA-AES256-GCM-SHA384"
--- error_log
lua ssl certificate verify error: (21: unable to verify the first certificate)
lua ssl certificate verify error: (3: unable to get certificate CRL)



=== TEST 8: a connection with a client certificate stays with those who have it
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
            local function visit(label, with)
                local m = kit.new()
                if with then m.sock:setclientcert(cert, key) end
                assert(m:connect("127.0.0.1", tls.web.good))
                assert(m:sslhandshake(nil, "memcached.test"))
                kit.show(label, tls.ask(m, "/client"), m:set_keepalive())
            end
            visit("with", true)
            visit("without", false)
            visit("with", true)
            visit("without", false)
        }
    }
--- request
GET /t
--- response_body
with: "SUCCESS CN=a client", 1
without: "NONE ", 1
with: "SUCCESS CN=a client", 1
without: "NONE ", 1
--- no_error_log
[error]
[alert]



=== TEST 9: whoever waits behind a connection that is not used gets its place
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local ways = {
                close = function(m) return m:close() end,
                set_keepalive = function(m) return m:set_keepalive() end,
                handshake = function(m)
                    local ok, err = m:sslhandshake(false)
                    m:close()
                    return ok, err
                end,
                plain = function(m) return (m:get("k")) == nil, m:close() end,
            }
            for _, way in ipairs{ "close", "set_keepalive", "handshake", "plain" } do
                local opts = { pool = "behind" .. way, pool_size = 1, backlog = 3 }
                local function connect()
                    local m = kit.new()
                    m:set_timeout(2000)
                    assert(m:connect("127.0.0.1", tls.port, opts))
                    return m
                end
                local first = connect()
                assert(first:sslhandshake(false))
                local done = {}
                local function wait(name)
                    local m = connect()
                    local ok = ways[way](m)
                    done[#done + 1] = name .. " " .. tostring(ok)
                end
                local a, b = ngx.thread.spawn(wait, "a"), ngx.thread.spawn(wait, "b")
                ngx.sleep(0.02)
                first:set_keepalive()
                local ms = kit.timed(function() ngx.thread.wait(a) ngx.thread.wait(b) end)
                kit.show(way, table.concat(done, ", "), ms < 1500)
            end
        }
    }
--- request
GET /t
--- response_body
close: "a 1, b 1", true
set_keepalive: "a 1, b 1", true
handshake: "a true, b true", true
plain: "a true, b true", true
--- no_error_log
queued connect timed out
[alert]



=== TEST 10: a plain connection that died is not put back
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local served = 0
            local srv = kit.fake(function(c)
                served = served + 1
                ngx.sleep(0.1)
                c:close()
            end)
            local opts = { pool = "dies" }
            local m = kit.connect(srv.port, opts)
            m:set_keepalive(60000)
            m = kit.connect(srv.port, opts)
            kit.show("reused", m:get_reused_times())
            kit.show("gone", kit.eventually(function() return served == 1 end))
            ngx.sleep(0.2)
            m:sslhandshake(false)
            m = kit.connect(srv.port, opts)
            kit.show("another", m:get_reused_times())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
reused: 1
gone: true
another: 0
--- no_error_log
[alert]
[emerg]



=== TEST 11: a connection opened for a command that was then refused is not pooled
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local opts = { pool = "refused" }
            local m = kit.connect(tls.port, opts)
            m:sslhandshake(false)
            m:set_keepalive()
            m = kit.connect(tls.port, opts)
            kit.show("get", m:get(("k"):rep(300)))
            kit.show("set_keepalive", m:set_keepalive())
            m = kit.connect(tls.port, opts)
            kit.show("handshake", m:sslhandshake(false))
            kit.show("the one of before", m:get_reused_times(), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "CLIENT_ERROR bad command line format"
set_keepalive: 1
handshake: true
the one of before: 1, "yes"
--- no_error_log
[error]
[alert]



=== TEST 12: a pooled connection that is not what is wanted gives its place up
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for backlog = 0, 1 do
                local opts = { pool = "one place" .. backlog, pool_size = 1, backlog = backlog }
                local function use(port, tls)
                    local m = kit.new()
                    m:set_timeout(2000)
                    local ok, err = m:connect("127.0.0.1", port, opts)
                    if ok and tls then ok, err = m:sslhandshake(false) end
                    if not ok then return ok, err end
                    ok, err = m:set("a", "1")
                    m:set_keepalive()
                    return ok, err
                end
                local ms = kit.timed(function()
                    kit.show("TLS", use(tls.port, true))
                    kit.show("another server", use(kit.port, false))
                    kit.show("TLS again", use(tls.port, true))
                end)
                kit.show("without waiting", ms < 1500)
            end
        }
    }
--- request
GET /t
--- response_body
TLS: 1, nil
another server: 1, nil
TLS again: 1, nil
without waiting: true
TLS: 1, nil
another server: 1, nil
TLS again: 1, nil
without waiting: true
--- no_error_log
queued connect timed out
[alert]



=== TEST 13: time limits of what waits for a plain connection instead of a pooled TLS one
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                tls.join(c, tls.port, function(_, _, record) return record end)
            end, { backlog = 0 })
            local m = kit.connect(srv.port)
            m:sslhandshake(false)
            m:set_keepalive()
            srv.deaf = true
            ngx.sleep(0.01)

            m = kit.connect(srv.port)
            m:set_timeouts(3000, 100, 3000)
            local ms, sent, err = kit.timed(m.sock.send, m.sock, ("x"):rep(16 * 1024 * 1024))
            kit.show("send", sent, err, ms > 95 and ms < 2000 or ms)

            for _ = 1, 4 do srv:knock() end
            ngx.sleep(0.01)
            m = kit.connect(srv.port)
            m:set_timeouts(100, 3000, 3000)
            m:init_pipeline()
            m:get("a")
            m:get("b")
            local replies
            ms, replies, err = kit.timed(m.commit_pipeline, m)
            kit.show("pipeline", replies, err, ms > 95 and ms < 2000 or ms)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
send: nil, "timeout", true
pipeline: nil, "timeout", true
--- error_log
write timed out
connect timed out
--- timeout: 20



=== TEST 14: a plain connection of a pool with TLS connections looks new
--- private: shared connections count for themselves
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local opts = { pool = "both" }
            for _ = 1, 2 do
                local m = kit.connect(kit.port, opts)
                kit.show("plain", m:get("nothing"), m:get_reused_times())
                m:set_keepalive()
                m = kit.connect(tls.port, opts)
                m:sslhandshake(false)
                m:set_keepalive()
            end
        }
    }
--- request
GET /t
--- response_body
plain: nil, 0
plain: nil, 0
--- no_error_log
[error]
[alert]
