use lib 't/lib';
use File::Temp ();
use TestEnv;
use Test::Nginx::Socket::Lua;

# A certificate of this run, for the listener whose handshakes run Lua.
our $Dir = File::Temp->newdir( 'tlsXXXXXX', TMPDIR => 1 );
chmod 0755, "$Dir";
system(
    "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=server.test "
        . "-keyout $Dir/key.pem -out $Dir/cert.pem >$Dir/log 2>&1"
) == 0 or die "openssl makes no certificate: " . `cat $Dir/log`;
chmod 0644, "$Dir/key.pem";
$ENV{TEST_NGINX_TLS_PORT} = TestEnv::free_port();

our $HttpConfig = TestEnv::head(
    init => qq{
        -- A handshake with the server that runs Lua in it: what came of it, the
        -- session, and what it answered to a request.
        function kit.handshake(session)
            local sock = ngx.socket.tcp()
            sock:settimeout(2000)
            assert(sock:connect("127.0.0.1", $ENV{TEST_NGINX_TLS_PORT}))
            local ok, err = sock:sslhandshake(session, "server.test", false)
            local answer
            if ok then
                sock:send("GET / HTTP/1.0\\r\\n\\r\\n")
                answer = sock:receive("*a"):match("\\r\\n\\r\\n(.*)")
            end
            sock:close()
            return ok and "done" or err, ok, answer
        end

        function kit.steps()
            for _, step in ipairs{ "new", "connect", "set", "get", "keep" } do
                kit.show(step, kit.shared[step])
            end
        end
    },
);

# server(PHASE => LUA, ...): a TLS server with Lua in these phases.
sub server {
    my %phase = @_;
    my $lua = join '', map {"${_}_by_lua_block { $phase{$_} }\n"} sort keys %phase;
    return qq{
    server {
        listen 127.0.0.1:$ENV{TEST_NGINX_TLS_PORT} ssl;
        ssl_certificate $Dir/cert.pem;
        ssl_certificate_key $Dir/key.pem;
        ssl_protocols TLSv1.2;
        ssl_session_tickets off;
        ssl_session_cache shared:sessions:1m;
        $lua
        location / { content_by_lua_block { ngx.print(kit.in_step(kit.connect())) } }
    }
};
}

# What each of these phases tries: to make an object, connect, and use it. A unix socket connects
# without waiting, so that the first wait is that for a reply.
our $Try = attempt("m:connect('127.0.0.1', kit.port, { pool = 'tls' })");
our $TryUnix = attempt("m:connect('unix:$ENV{TEST_NGINX_MEMCACHED_SOCK}')");

sub attempt {
    my ($connect) = @_;
    return qq{
    local memcached = require "resty.memcached"
    local ok, m = pcall(memcached.new, memcached)
    kit.shared.new = ok and "made" or (m:gsub("^[^\\n]-:%d+: ", ""))
    if ok then
        m:set_timeout(2000)
        kit.shared.connect = kit.vals($connect)
        kit.shared.set = kit.vals(m:set("tls", "v"))
        kit.shared.get = kit.vals(m:get("tls"))
        kit.shared.keep = kit.vals(m:set_keepalive())
    end
};
}

run_tests();

__DATA__

=== TEST 1: ssl_certificate_by_lua
--- http_config eval: $::HttpConfig . main::server(ssl_certificate => $::Try)
--- config
    location = /t {
        content_by_lua_block {
            local what, _, answer = kit.handshake()
            kit.show("handshake", what, answer)
            kit.steps()
            what, _, answer = kit.handshake()
            kit.show("handshake", what, answer)
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
handshake: "done", "yes"
new: "made"
connect: "1"
set: "1"
get: "\"v\", \"0\""
keep: "1"
handshake: "done", "yes"
in step: "yes"
--- no_error_log
[alert]



=== TEST 2: ssl_client_hello_by_lua: works, or (without the patches to wait there) fails as a whole
--- private: each handshake makes a connection
--- http_config eval: $::HttpConfig . main::server(ssl_client_hello => $::Try)
--- config
    location = /t {
        content_by_lua_block {
            for i = 1, 3 do
                local what, _, answer = kit.handshake()
                local whole = what == "done" and answer == "yes" and kit.shared.get == '"v", "0"'
                local none = what == "handshake failed" and kit.shared.connect == nil
                kit.show("all or nothing", whole or none, kit.shared.new)
            end
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
all or nothing: true, "made"
all or nothing: true, "made"
all or nothing: true, "made"
in step: "yes"
--- no_error_log
[alert]



=== TEST 3: ssl_session_fetch_by_lua, likewise
--- private: each handshake makes a connection
--- http_config eval: "ssl_session_fetch_by_lua_block { $::Try }" . $::HttpConfig . main::server()
--- config
    lua_ssl_protocols TLSv1.2;
    location = /t {
        content_by_lua_block {
            local what, session, answer = kit.handshake()
            kit.show("handshake", what, answer, kit.shared.new)
            for i = 1, 2 do
                what, session, answer = kit.handshake(session)
                local whole = kit.shared.get == '"v", "0"'
                local none = kit.shared.connect == nil
                kit.show("handshake", what, answer, kit.shared.new, whole or none)
            end
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
handshake: "done", "yes", nil
handshake: "done", "yes", "made", true
handshake: "done", "yes", "made", true
in step: "yes"
--- no_error_log
[alert]



=== TEST 4: ssl_session_store_by_lua
--- http_config eval: "ssl_session_store_by_lua_block { $::Try }" . $::HttpConfig . main::server()
--- config
    lua_ssl_protocols TLSv1.2;
    location = /t {
        content_by_lua_block {
            local what, session, answer = kit.handshake()
            kit.show("handshake", what, answer)
            kit.steps()
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
handshake: "done", "yes"
new: "API disabled in the context of ssl_session_store_by_lua*"
connect: nil
set: nil
get: nil
keep: nil
in step: "yes"
--- no_error_log
[alert]



=== TEST 5: a connection that waits for its reply when the handshake is given up
--- http_config eval: $::HttpConfig . main::server(ssl_client_hello => $::TryUnix)
--- config
    location = /t {
        content_by_lua_block {
            for i = 1, 3 do
                local what = kit.handshake()
                kit.show("all or nothing", what == (kit.shared.get and "done" or "handshake failed"),
                    kit.shared.new, kit.shared.connect)
            end
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
all or nothing: true, "made", "1"
all or nothing: true, "made", "1"
all or nothing: true, "made", "1"
in step: "yes"
--- no_error_log
[alert]
