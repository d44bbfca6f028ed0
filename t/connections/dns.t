use lib 't/lib';
use TestEnv;
use DnsServer;
use Test::Nginx::Socket::Lua;

$ENV{TEST_NGINX_DNS_PORT} = DnsServer::start();

our $HttpConfig = TestEnv::head( init => qq{ require("dnskit").port = $ENV{TEST_NGINX_DNS_PORT} } );

run_tests();

__DATA__

=== TEST 1: one address
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("connect", m:connect("t1.one.test", kit.port))
            kit.show("in step", kit.in_step(m), m:get_reused_times())
            kit.show("asked", kit.asked("t1.one.test"))
            kit.show("again", m:connect("t1.one.test", kit.port))
            kit.show("in step", kit.in_step(m))
            kit.show("from the resolver's cache", kit.asked("t1.one.test"))
            kit.show("upper case", m:connect("T1.ONE.Test", kit.port), kit.in_step(m))
            kit.show("one name", kit.asked("t1.one.test"))
            kit.show("alias", m:connect("alias.test", kit.port), kit.in_step(m))
            kit.show("port as a string", m:connect("s.one.test", tostring(kit.port)), kit.in_step(m))
            kit.show("sock", m.sock:connect("k.one.test", kit.port), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
connect: 1
in step: "yes", 0
asked: 1
again: 1
in step: "yes"
from the resolver's cache: 1
upper case: 1, "yes"
one name: 1
alias: 1, "yes"
port as a string: 1, "yes"
sock: 1, "yes"
--- no_error_log
[error]



=== TEST 2: names that have no address
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 400ms;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for _, name in ipairs{ "nx", "empty", "form", "fail", "notimp", "refused" } do
                kit.show(name, m:connect(name .. ".test", kit.port))
            end
            kit.show("an object afterwards", m:get("k"))
            kit.show("close", m:close())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("connect", m:connect("one.test", kit.port))
            kit.show("in step", kit.in_step(m))
            kit.show("connected, then a failure", m:connect("nx.test", kit.port))
            kit.show("the old one", m:close())
        }
    }
--- request
GET /t
--- response_body
nx: nil, "nx.test could not be resolved (3: Host not found)"
empty: nil, "empty.test could not be resolved (3: Host not found)"
form: nil, "form.test could not be resolved (110: Operation timed out)"
fail: nil, "fail.test could not be resolved (2: Server failure)"
notimp: nil, "notimp.test could not be resolved (4: Unimplemented)"
refused: nil, "refused.test could not be resolved (5: Operation refused)"
an object afterwards: nil, nil, "closed"
close: nil, "closed"
set_keepalive: nil, "closed"
get_reused_times: nil, "closed"
connect: 1
in step: "yes"
connected, then a failure: nil, "nx.test could not be resolved (3: Host not found)"
the old one: nil, "closed"
--- no_error_log
[alert]



=== TEST 3: failures leave nothing in the log by themselves
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 300ms;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("nx", m:connect("nx.test", kit.port))
            kit.show("fail", m:connect("fail.test", kit.port))
            kit.show("never", m:connect("never.test", kit.port))
        }
    }
--- request
GET /t
--- response_body
nx: nil, "nx.test could not be resolved (3: Host not found)"
fail: nil, "fail.test could not be resolved (2: Server failure)"
never: nil, "never.test could not be resolved (110: Operation timed out)"
--- no_error_log
[error]



=== TEST 4: no resolver
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("name", m:connect("one.test", kit.port))
            kit.show("localhost", m:connect("localhost", kit.port))
            kit.show("get", m:get("k"))
            kit.show("address", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
            kit.show("name", m:connect("one.test", kit.port))
            kit.show("close", m:close())
            kit.show("unix", m:connect("unix:$TEST_NGINX_MEMCACHED_SOCK"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
name: nil, "no resolver defined to resolve \"one.test\""
localhost: nil, "no resolver defined to resolve \"localhost\""
get: nil, nil, "closed"
address: 1
in step: "yes"
name: nil, "no resolver defined to resolve \"one.test\""
close: nil, "closed"
unix: 1
in step: "yes"
--- error_log
attempt to send data on a closed socket



=== TEST 5: how long a look-up may take
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 500ms;
    location = /short {
        resolver_timeout 100ms;
        content_by_lua_block {
            local m = kit.new()
            kit.show("slow", kit.took(100, m, "a.slow.test", kit.port))
            kit.show("never", kit.took(100, m, "a.never.test", kit.port))
        }
    }
    location = /t {
        lua_socket_connect_timeout 50ms;
        content_by_lua_block {
            local m = require("resty.memcached"):new()
            kit.show("the directive", kit.took(200, m, "b.slow.test", kit.port))
            m:set_timeout(50)
            kit.show("set_timeout", kit.took(200, m, "c.slow.test", kit.port))
            kit.show("in step", kit.in_step(m))
            m:set_timeouts(50, 50, 50)
            kit.show("set_timeouts", kit.took(200, m, "d.slow.test", kit.port))
            m:set_timeout(1000)
            kit.show("never", kit.took(500, m, "b.never.test", kit.port))
            kit.show("an address", m:connect("127.0.0.1", kit.port), kit.in_step(m))
            ngx.print(ngx.location.capture("/short").body)
        }
    }
--- request
GET /t
--- response_body
the directive: 1, nil, true
set_timeout: 1, nil, true
in step: "yes"
set_timeouts: 1, nil, true
never: nil, "b.never.test could not be resolved (110: Operation timed out)", true
an address: 1, "yes"
slow: nil, "a.slow.test could not be resolved (110: Operation timed out)", true
never: nil, "a.never.test could not be resolved (110: Operation timed out)", true
--- no_error_log
[error]



=== TEST 6: the connect timeout begins after the look-up
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    location = /t {
        content_by_lua_block {
            local srv = kit.listen{ backlog = 0 }
            for _ = 1, 4 do srv:knock() end
            local m = kit.new()
            m:set_timeout(100)
            kit.show("connect", kit.took(300, m, "e.slow.test", srv.port))
            kit.show("again", kit.took(100, m, "e.slow.test", srv.port))
            srv:close()
            kit.show("another", m:connect("e.slow.test", kit.port))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
connect: nil, "timeout", true
again: nil, "timeout", true
another: 1
in step: "yes"
--- error_log eval
qr/lua tcp socket connect timed out, when connecting to 127\.0\.0\.1:\d+/



=== TEST 7: several addresses: any of them
--- private: each connect chooses an address
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local n = {}
            for i = 1, 80 do
                local ok, err = m:connect("two.test", kit.port)
                if ok and kit.in_step(m) ~= "yes" then err = "out of step" end
                local what = err or "connected"
                n[what] = (n[what] or 0) + 1
            end
            local seen = {}
            for what in pairs(n) do seen[#seen + 1] = what end
            table.sort(seen)
            kit.show("seen", seen)
            kit.show("asked", kit.asked("two.test"))
            kit.show("only one, and refused", m:connect("far.test", kit.port))
            kit.show("the next", m:connect("one.test", kit.port), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
seen: {"connected", "connection refused"}
asked: 1
only one, and refused: nil, "connection refused"
the next: 1, "yes"
--- error_log
connect() failed (111: Connection refused)



=== TEST 8: IPv6
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT;
    location = /off {
        resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
        content_by_lua_block {
            local m = kit.new()
            kit.show("ipv6=off, AAAA only", m:connect("off.v6.test", kit.port))
            kit.show("ipv6=off, both", m:connect("off.both.test", kit.port), kit.in_step(m))
            kit.show("asked", kit.asked("off.both.test"))
        }
    }
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("AAAA only", m:connect("v6.test", kit.port), kit.in_step(m))
            kit.show("A only", m:connect("t8.one.test", kit.port), kit.in_step(m))
            kit.show("both", m:connect("both.test", kit.port), kit.in_step(m))
            kit.show("asked", kit.asked("v6.test"), kit.asked("t8.one.test"), kit.asked("both.test"))
            kit.show("none", m:connect("nx.test", kit.port))
            kit.show("AAAA, refused", m:connect("v6.test", $TEST_NGINX_UNUSED_PORT))
            ngx.print(ngx.location.capture("/off").body)
        }
    }
--- request
GET /t
--- response_body
AAAA only: 1, "yes"
A only: 1, "yes"
both: 1, "yes"
asked: 2, 2, 2
none: nil, "nx.test could not be resolved (3: Host not found)"
AAAA, refused: nil, "connection refused"
ipv6=off, AAAA only: nil, "off.v6.test could not be resolved (3: Host not found)"
ipv6=off, both: 1, "yes"
asked: 1
--- error_log
connect() failed (111: Connection refused)



=== TEST 9: an answer too long for a datagram comes over TCP
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local wrong
            for i = 1, 20 do
                local ok, err = m:connect("tc.test", kit.port)
                if not ok and err ~= "connection refused" then wrong = err end
            end
            kit.show("connected or refused", wrong == nil, wrong)
            kit.show("asked", kit.asked("tc.test"))
        }
    }
--- request
GET /t
--- response_body
connected or refused: true, nil
asked: 2
--- no_error_log
[alert]



=== TEST 10: a port within the name, and what is no name at all
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for _, host in ipairs{ "", "one.test:80", "one.test:0", "one.test:x", "one.test:",
                    "one.test:65536", "[::1", "::1", "http://one.test", "/one.test", "one.test/x",
                    "one.test?x" } do
                local ok, err = m:connect(host, kit.port)
                ngx.say(ok, " ", err)
            end
            kit.show("the port of the address", m:connect("127.0.0.1:" .. kit.port, 1), kit.in_step(m))
            kit.show("refused", m:connect("127.0.0.1:$TEST_NGINX_UNUSED_PORT", kit.port))
            kit.show("upper case", m:connect("UNIX:$TEST_NGINX_MEMCACHED_SOCK", 1), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
nil failed to parse host name "": no host
nil one.test:80 could not be resolved (3: Host not found)
nil failed to parse host name "one.test:0": invalid port
nil failed to parse host name "one.test:x": invalid port
nil failed to parse host name "one.test:": invalid port
nil failed to parse host name "one.test:65536": invalid port
nil failed to parse host name "[::1": invalid host
nil failed to parse host name "::1": invalid port
nil failed to parse host name "http://one.test": invalid host
nil failed to parse host name "/one.test": invalid host
nil failed to parse host name "one.test/x": invalid host
nil failed to parse host name "one.test?x": invalid host
the port of the address: 1, "yes"
refused: nil, "connection refused"
upper case: 1, "yes"
--- error_log
connect() failed (111: Connection refused)



=== TEST 11: odd names
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 200ms;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for _, host in ipairs{ "dot.one.test.", "a_b.one.test", "a b.one.test", "\195\164.one.test",
                    "%31.one.test", "*.one.test", string.rep("a", 63) .. ".one.test",
                    string.rep("a.", 122) .. "one.test" } do
                if not m:connect(host, kit.port) or kit.in_step(m) ~= "yes" then
                    kit.show("failed", host)
                end
            end
            for _, host in ipairs{ ".nx.test", "a..nx.test", "nx.test..", "127.1", "0x7f.0.0.1",
                    "2130706433", "127.0.0.1 ", " 127.0.0.1", "unix", "-", ".", "..", "a\0b.nx.test",
                    "a\r\nb.nx.test", "a\"b.nx.test", "user@nx.test", 5, 1.5 } do
                kit.show("host", m:connect(host, kit.port))
            end
            for _, name in ipairs{ string.rep("a", 64) .. ".one.test", string.rep("a.", 200) .. "one.test",
                    string.rep("a.", 5000) .. "one.test" } do
                local ok, err = m:connect(name, kit.port)
                kit.show("too long", ok, err:sub(1, #name) == name, err:sub(#name + 1))
            end
        }
    }
--- request
GET /t
--- response_body
host: nil, ".nx.test could not be resolved (3: Host not found)"
host: nil, "a..nx.test could not be resolved (3: Host not found)"
host: nil, "nx.test. could not be resolved (3: Host not found)"
host: nil, "127.1 could not be resolved (3: Host not found)"
host: nil, "0x7f.0.0.1 could not be resolved (3: Host not found)"
host: nil, "2130706433 could not be resolved (3: Host not found)"
host: nil, "127.0.0.1  could not be resolved (3: Host not found)"
host: nil, " 127.0.0.1 could not be resolved (3: Host not found)"
host: nil, "unix could not be resolved (3: Host not found)"
host: nil, "- could not be resolved (3: Host not found)"
host: nil, " could not be resolved (3: Host not found)"
host: nil, ". could not be resolved (3: Host not found)"
host: nil, "a\x00b.nx.test could not be resolved (3: Host not found)"
host: nil, "a\r\nb.nx.test could not be resolved (3: Host not found)"
host: nil, "a\"b.nx.test could not be resolved (3: Host not found)"
host: nil, "user@nx.test could not be resolved (3: Host not found)"
host: nil, "5 could not be resolved (3: Host not found)"
host: nil, "1.5 could not be resolved (3: Host not found)"
too long: nil, true, " could not be resolved (110: Operation timed out)"
too long: nil, true, " could not be resolved (110: Operation timed out)"
too long: nil, true, " could not be resolved (110: Operation timed out)"
--- no_error_log
[error]
