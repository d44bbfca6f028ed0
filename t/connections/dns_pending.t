use lib 't/lib';
use TestEnv;
use DnsServer;
use Test::Nginx::Socket::Lua;

$ENV{TEST_NGINX_DNS_PORT} = DnsServer::start();

our $HttpConfig = TestEnv::head( init => qq{ require("dnskit").port = $ENV{TEST_NGINX_DNS_PORT} } );

master_on();
workers(1);
run_tests();

__DATA__

=== TEST 1: a pooled connection is found by name, before any look-up
--- private: connections are taken out of a pool
--- http_config eval: $::HttpConfig
--- config
    location = /resolved {
        resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
        content_by_lua_block {
            local m = kit.new()
            for _, opts in ipairs{ {}, { pool = "mine" } } do
                kit.show("connect", m:connect("p1.one.test", kit.port, opts), m:get_reused_times())
                kit.show("keep", kit.in_step(m), m:set_keepalive())
            end
        }
    }
    location = /t {
        content_by_lua_block {
            ngx.print(ngx.location.capture("/resolved").body)
            local m = kit.new()
            kit.show("by name", m:connect("p1.one.test", kit.port), m:get_reused_times(), kit.in_step(m))
            kit.show("only once", kit.new():connect("p1.one.test", kit.port))
            kit.show("again", m:set_keepalive(), m:connect("p1.one.test", kit.port), m:get_reused_times())
            m:set_keepalive()
            kit.show("the address is another pool", m:connect("127.0.0.1", kit.port), m:get_reused_times())
            kit.show("a name is spelled one way", m:connect("P1.one.test", kit.port))
            kit.show("another port", m:connect("p1.one.test", 1))
            kit.show("by pool", m:connect("what.ever", 1, { pool = "mine" }), m:get_reused_times(),
                kit.in_step(m))
            kit.show("kept there", m:set_keepalive())
            kit.show("by pool", m:connect("127.0.0.1", kit.port, { pool = "mine" }), m:get_reused_times())
            kit.show("kept", m:set_keepalive())
            kit.show("pool named so", m:connect("127.0.0.1", 1, { pool = "p1.one.test:" .. kit.port }),
                m:get_reused_times(), kit.in_step(m))
            kit.show("asked", kit.asked("p1.one.test"))
        }
    }
--- request
GET /t
--- response_body
connect: 1, 0
keep: "yes", 1
connect: 1, 0
keep: "yes", 1
by name: 1, 1, "yes"
only once: nil, "no resolver defined to resolve \"p1.one.test\""
again: 1, 1, 2
the address is another pool: 1, 0
a name is spelled one way: nil, "no resolver defined to resolve \"P1.one.test\""
another port: nil, "no resolver defined to resolve \"p1.one.test\""
by pool: 1, 1, "yes"
kept there: 1
by pool: 1, 2
kept: 1
pool named so: 1, 3, "yes"
asked: 1
--- no_error_log
[error]



=== TEST 2: look-ups at once
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 300ms;
    location = /t {
        content_by_lua_block {
            local function at_once(n, name)
                local threads, out = {}, {}
                for i = 1, n do
                    threads[i] = ngx.thread.spawn(function()
                        local m = kit.new()
                        local ok, err = m:connect(name:gsub("#", i), kit.port)
                        return ok and kit.in_step(m) or err
                    end)
                end
                for i = 1, n do
                    local _, what = ngx.thread.wait(threads[i])
                    out[what] = (out[what] or 0) + 1
                end
                return out
            end
            local ms, out = kit.timed(at_once, 20, "p2.slow.test")
            kit.show("one name", out, ms < 450)
            kit.show("asked", kit.asked("p2.slow.test"))
            ms, out = kit.timed(at_once, 20, "p2-#.slow.test")
            kit.show("many names", out, ms < 450)
            kit.show("no such", at_once(3, "p2.nx.test"))
            kit.show("never", at_once(3, "p2.never.test"))
            kit.show("afterwards", at_once(10, "p2.one.test"))
        }
    }
--- request
GET /t
--- response_body
one name: {yes=20}, true
asked: 1
many names: {yes=20}, true
no such: {["p2.nx.test could not be resolved (3: Host not found)"]=3}
never: {["p2.never.test could not be resolved (110: Operation timed out)"]=3}
afterwards: {yes=10}
--- no_error_log
[error]



=== TEST 3: an object whose look-up is pending
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local t = ngx.thread.spawn(function() return m:connect("p3.slow.test", kit.port) end)
            kit.show("get", m:get("k"))
            kit.show("set", m:set("k", "v"))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("connect by name", m:connect("one.test", kit.port))
            kit.show("sock receive", m.sock:receive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("set_timeout", m:set_timeout(1000))
            kit.show("the first", ngx.thread.wait(t))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "closed"
set: nil, "closed"
set_keepalive: nil, "closed"
close: nil, "closed"
connect: nil, "socket busy connecting"
connect by name: nil, "socket busy connecting"
sock receive: nil, "closed"
get_reused_times: nil, "closed"
set_timeout: 1
the first: true, 1
in step: "yes"
--- error_log
attempt to send data on a closed socket



=== TEST 4: a thread killed while it waits for a look-up
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 400ms;
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for _, name in ipairs{ "p4.slow.test", "p4.never.test", "p4.one.test" } do
                local object = kit.new()
                local t = ngx.thread.spawn(object.connect, object, name, kit.port)
                kit.show(name, ngx.thread.kill(t))
                kit.show("wait", ngx.thread.wait(t))
                kit.show("get", object:get("k"))
            end
            local t = ngx.thread.spawn(function() return m:connect("p4.slow.test", kit.port) end)
            local other = kit.new()
            kit.show("waiting for the same answer", other:connect("p4.slow.test", kit.port),
                kit.in_step(other))
            kit.show("thread", ngx.thread.wait(t))
            ngx.sleep(0.5)
            kit.show("in step", kit.in_step(kit.connect()), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
p4.slow.test: 1
wait: nil, "already waited or killed"
get: nil, nil, "closed"
p4.never.test: 1
wait: nil, "already waited or killed"
get: nil, nil, "closed"
p4.one.test: 1
wait: nil, "already waited or killed"
get: nil, nil, "closed"
waiting for the same answer: 1, "yes"
thread: true, 1
in step: "yes", "yes"
--- no_error_log
[alert]



=== TEST 5: a request that ends while a look-up is pending
--- private: counts connections
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 400ms;
    location = /exit {
        content_by_lua_block {
            ngx.thread.spawn(function() kit.new():connect(ngx.var.arg_name, kit.port) end)
            ngx.print("exit")
            ngx.exit(200)
        }
    }
    location = /error {
        content_by_lua_block {
            ngx.thread.spawn(function() kit.new():connect(ngx.var.arg_name, kit.port) end)
            ngx.sleep(0.01)
            error("on purpose")
        }
    }
    location = /redirect {
        rewrite_by_lua_block {
            ngx.thread.spawn(function() kit.new():connect(ngx.var.arg_name, kit.port) end)
            ngx.redirect("/elsewhere")
        }
    }
    location = /exec {
        access_by_lua_block {
            ngx.thread.spawn(function() kit.new():connect(ngx.var.arg_name, kit.port) end)
            ngx.exec("/done")
        }
    }
    location = /done { content_by_lua_block { ngx.print(kit.in_step(kit.connect())) } }
    location = /abort {
        lua_check_client_abort on;
        content_by_lua_block {
            kit.new():connect(ngx.var.arg_name, kit.port)
            kit.shared.went_on = true
        }
    }
    location = /unchecked {
        content_by_lua_block {
            kit.new():connect(ngx.var.arg_name, kit.port)
            kit.shared.unchecked = (kit.shared.unchecked or 0) + 1
        }
    }
    location = /t {
        content_by_lua_block {
            local before = kit.stat("curr_connections")
            local function get(path, secs)
                return kit.http($TEST_NGINX_SERVER_PORT, path, secs)
            end
            for _, name in ipairs{ "slow.test", "never.test" } do
                kit.show("exit", get("/exit?name=a5." .. name))
                kit.show("error", get("/error?name=b5." .. name):match("500 Internal"))
                kit.show("redirect", get("/redirect?name=c5." .. name):match("302 Found"))
                kit.show("exec", get("/exec?name=d5." .. name))
                kit.show("client gone, checked", get("/abort?name=e5." .. name, 0.03))
                kit.show("client gone, unchecked", get("/unchecked?name=f5." .. name, 0.03))
            end
            ngx.sleep(0.6)
            kit.show("went on", kit.shared.went_on, kit.shared.unchecked)
            kit.show("connections", kit.stat("curr_connections") - before)
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
exit: "exit"
error: "500 Internal"
redirect: "302 Found"
exec: "yes"
client gone, checked: 1
client gone, unchecked: 1
exit: "exit"
error: "500 Internal"
redirect: "302 Found"
exec: "yes"
client gone, checked: 1
client gone, unchecked: 1
went on: nil, 2
connections: 0
in step: "yes"
--- no_error_log
[alert]



=== TEST 6: names and a backlog
--- private: connections wait for a place in a pool
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 300ms;
    location = /t {
        content_by_lua_block {
            local function connecting(name, pool, timeout)
                local m = kit.new()
                if timeout then m:set_timeout(timeout) end
                return m, ngx.thread.spawn(function()
                    return m:connect(name, kit.port, { pool = pool, pool_size = 1, backlog = 1 })
                end)
            end
            local function round(first, second, pool, timeout)
                local a, ta = connecting(first, pool)
                local b, tb = connecting(second, pool, timeout)
                local c, tc = connecting(second, pool)
                kit.show("third", ngx.thread.wait(tc))
                kit.show("first", ngx.thread.wait(ta))
                if a:get_reused_times() then kit.show("keep", kit.in_step(a), a:set_keepalive()) end
                kit.show("second", ngx.thread.wait(tb))
                if b:get_reused_times() then
                    kit.show("reused", b:get_reused_times(), kit.in_step(b), b:close())
                end
            end
            round("p6.slow.test", "p6.slow.test", "ok")
            round("p6.fail.test", "p6.one.test", "fails")
            round("p6.nx.test", "p6.nx.test", "both fail")
            round("p6.never.test", "p6b.slow.test", "never")
            round("p6c.slow.test", "p6.one.test", "times out", 50)
            local m, t = connecting("p6d.slow.test", "killed")
            local n, u = connecting("p6.one.test", "killed")
            ngx.thread.kill(t)
            kit.show("after a kill", ngx.thread.wait(u))
            kit.show("in step", kit.in_step(n))
        }
    }
--- request
GET /t
--- response_body
third: true, nil, "too many waiting connect operations"
first: true, 1
keep: "yes", 1
second: true, 1
reused: 1, "yes", 1
third: true, nil, "too many waiting connect operations"
first: true, nil, "p6.fail.test could not be resolved (2: Server failure)"
second: true, 1
reused: 0, "yes", 1
third: true, nil, "too many waiting connect operations"
first: true, nil, "p6.nx.test could not be resolved (3: Host not found)"
second: true, nil, "p6.nx.test could not be resolved (3: Host not found)"
third: true, nil, "too many waiting connect operations"
first: true, nil, "p6.never.test could not be resolved (110: Operation timed out)"
second: true, 1
reused: 0, "yes", 1
third: true, nil, "too many waiting connect operations"
first: true, 1
keep: "yes", 1
second: true, nil, "timeout"
after a kill: true, 1
in step: "yes"
--- no_error_log
[alert]



=== TEST 7: look-ups in other phases and timers
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    location = /phases {
        rewrite_by_lua_block { kit.shared.rewrite = kit.vals(kit.new():connect("p7a.slow.test", kit.port)) }
        access_by_lua_block { kit.shared.access = kit.vals(kit.new():connect("p7b.slow.test", kit.port)) }
        content_by_lua_block { ngx.print("body") }
    }
    location = /t {
        content_by_lua_block {
            kit.http($TEST_NGINX_SERVER_PORT, "/phases")
            kit.show("rewrite", kit.shared.rewrite)
            kit.show("access", kit.shared.access)
            ngx.timer.at(0, function()
                local m = kit.new()
                kit.shared.timer = kit.vals(m:connect("p7c.slow.test", kit.port)) .. kit.in_step(m)
            end)
            kit.eventually(function() return kit.shared.timer end)
            kit.show("timer", kit.shared.timer)
            local co = coroutine.wrap(function()
                local m = kit.new()
                coroutine.yield(m:connect("p7d.slow.test", kit.port))
                return kit.in_step(m)
            end)
            kit.show("coroutine", co(), co())
            local m = kit.new()
            local ok, err = pcall(table.sort, { 3, 1, 2 }, function(a, b)
                m:connect("p7e.slow.test", kit.port)
                return a < b
            end)
            kit.show("table.sort", ok, tostring(err):match("attempt to yield across C%-call boundary"))
            ngx.sleep(0.3)
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
rewrite: "1"
access: "1"
timer: "1yes"
coroutine: 1, "yes"
table.sort: false, "attempt to yield across C-call boundary"
in step: "yes"
--- no_error_log
[alert]



=== TEST 8: a worker told to exit finishes its look-ups
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 500ms;
    location = /t {
        content_by_lua_block {
            local function connecting(name)
                local m = kit.new()
                return m, ngx.thread.spawn(m.connect, m, name, kit.port)
            end
            local slow, a = connecting("p8.slow.test")
            local _, b = connecting("p8.never.test")
            local _, c = connecting("p8.killed.slow.test")
            kit.reload()
            kit.show("exiting", kit.eventually(ngx.worker.exiting, 5))
            ngx.thread.kill(c)
            kit.show("slow", ngx.thread.wait(a))
            kit.show("in step", kit.in_step(slow), slow:set_keepalive())
            kit.show("never", ngx.thread.wait(b))
            kit.show("a new one", kit.new():connect("p8b.slow.test", kit.port))
        }
    }
--- request
GET /t
--- response_body
exiting: true
slow: true, 1
in step: "yes", 1
never: true, nil, "p8.never.test could not be resolved (110: Operation timed out)"
a new one: 1
--- no_error_log
[alert]



=== TEST 9: the process ends while look-ups are pending
--- http_config eval: $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 300ms;
    location = /t {
        content_by_lua_block {
            for i = 1, 5 do
                ngx.timer.at(0, function()
                    kit.new():connect("p9-" .. i .. ".never.test", kit.port)
                end)
                ngx.timer.at(0, function()
                    kit.new():connect("p9-" .. i .. ".slow.test", kit.port)
                end)
            end
            ngx.sleep(0.01)
            ngx.say("pending")
        }
    }
--- request
GET /t
--- response_body
pending
--- no_shutdown_error_log
[alert]



=== TEST 10: the VM of a request goes while its look-up is pending
--- private: counts connections
--- http_config eval: "lua_code_cache off;" . $::HttpConfig
--- config
    resolver 127.0.0.1:$TEST_NGINX_DNS_PORT ipv6=off;
    resolver_timeout 400ms;
    location = /exit {
        content_by_lua_block {
            ngx.thread.spawn(function() kit.new():connect(ngx.var.arg_name, kit.port) end)
            ngx.print("exit")
            ngx.exit(200)
        }
    }
    location = /abort {
        lua_check_client_abort on;
        content_by_lua_block { kit.new():connect(ngx.var.arg_name, kit.port) }
    }
    location = /whole {
        content_by_lua_block {
            local m = kit.new()
            ngx.print((m:connect(ngx.var.arg_name, kit.port)), " ", kit.in_step(m))
        }
    }
    location = /t {
        content_by_lua_block {
            local before = kit.stat("curr_connections")
            for _, name in ipairs{ "slow.test", "never.test" } do
                kit.show("exit", kit.http($TEST_NGINX_SERVER_PORT, "/exit?name=a10." .. name))
                kit.http($TEST_NGINX_SERVER_PORT, "/abort?name=b10." .. name, 0.03)
            end
            collectgarbage()
            kit.show("whole", kit.http($TEST_NGINX_SERVER_PORT, "/whole?name=a10.slow.test"))
            ngx.sleep(0.5)
            kit.show("connections", kit.stat("curr_connections") - before)
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
exit: "exit"
exit: "exit"
whole: "1 yes"
connections: 0
in step: "yes"
--- error_log
lua_code_cache is off
