use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: used by another request while its owner is active
--- http_config eval: $::HttpConfig
--- config
    location = /other {
        content_by_lua_block {
            local m = kit.shared.m
            for _, call in ipairs{ { "get", "k" }, { "set", "k", "v" }, { "get", { "k" } },
                    { "gets", "k" }, { "delete", "k" }, { "incr", "k", 1 }, { "version" }, { "stats" },
                    { "flush_all" }, { "quit" }, { "cas", "k", "v", 1 }, { "touch", "k", 1 },
                    { "set_keepalive" }, { "close" }, { "get_reused_times" },
                    { "connect", "127.0.0.1", kit.port } } do
                kit.show(call[1], kit.raise_text(m[call[1]], m, unpack(call, 2)))
            end
            kit.show("sock send", kit.raise_text(m.sock.send, m.sock, "x"))
            kit.show("sock receive", kit.raise_text(m.sock.receive, m.sock))
        }
    }
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.shared.m = m
            m:set("k", "mine")
            ngx.say(kit.http($TEST_NGINX_SERVER_PORT, "/other"))
            kit.show("the owner", m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get: "bad request"
set: "bad request"
get: "bad request"
gets: "bad request"
delete: "bad request"
incr: "bad request"
version: "bad request"
stats: "bad request"
flush_all: "bad request"
quit: "bad request"
cas: "bad request"
touch: "bad request"
set_keepalive: "bad request"
close: "bad request"
get_reused_times: "returned 0"
connect: "bad request"
sock send: "bad request"
sock receive: "bad request"
the owner: "mine", "0"
in step: "yes"
--- no_error_log
[alert]



=== TEST 2: used after its owner ended
--- http_config eval: $::HttpConfig
--- config
    location = /owner {
        content_by_lua_block {
            kit.shared.m = kit.fresh()
            kit.shared.m:set("k", "v")
            ngx.print("left open")
        }
    }
    location = /t {
        content_by_lua_block {
            local function m()
                kit.http($TEST_NGINX_SERVER_PORT, "/owner")
                return kit.shared.m
            end
            kit.show("get", m():get("k"))
            kit.show("set", m():set("k", "v"))
            kit.show("get {}", m():get({ "k" }))
            kit.show("version", m():version())
            kit.show("set_keepalive", m():set_keepalive())
            kit.show("close", m():close())
            kit.show("get_reused_times", m():get_reused_times())
            kit.show("sock receive", m().sock:receive())
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "closed"
set: nil, "closed"
get {}: nil, "closed"
version: nil, "closed"
set_keepalive: nil, "closed"
close: nil, "closed"
get_reused_times: nil, "closed"
sock receive: nil, "closed"
--- error_log
attempt to send data on a closed socket



=== TEST 3: one object, one request after the other
--- private: closed connections are not used again
--- http_config eval: $::HttpConfig
--- config
    location = /made {
        content_by_lua_block { kit.shared.m = kit.new() }
    }
    location = /pooled {
        content_by_lua_block {
            local m = kit.shared.m
            assert(m:connect("127.0.0.1", kit.port, { pool = "one" }))
            kit.show("reused", m:get_reused_times(), kit.in_step(m), m:set_keepalive())
        }
    }
    location = /closed {
        content_by_lua_block {
            local m = kit.shared.m
            assert(m:connect("127.0.0.1", kit.port, { pool = "one" }))
            kit.show("reused", m:get_reused_times(), kit.in_step(m), m:close())
        }
    }
    location = /t {
        content_by_lua_block {
            for _, path in ipairs{ "made", "pooled", "pooled", "closed", "pooled" } do
                ngx.say(path, " ", kit.http($TEST_NGINX_SERVER_PORT, "/" .. path))
            end
        }
    }
--- request
GET /t
--- response_body
made 
pooled reused: 0, "yes", 1
pooled reused: 1, "yes", 1
closed reused: 2, "yes", 1
pooled reused: 0, "yes", 1
--- no_error_log
[error]



=== TEST 4: the end of a request closes what was left open
--- private: counts connections
--- garbage: objects are left alone with their connections open
--- http_config eval: $::HttpConfig
--- config
    location = /leave {
        content_by_lua_block {
            for i = 1, 10 do
                local m = kit.connect(nil, { pool = "left" })
                m:set("k", "v")
                if i > 5 then m.sock:send("get k\r\n") end
                if i > 8 then m:init_pipeline() m:get("k") end
            end
            ngx.print(kit.stat("curr_connections"))
        }
    }
    location = /raise {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "left" })
            m:set("k", "v")
            error("on purpose")
        }
    }
    location = /exit {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "left" })
            ngx.thread.spawn(function() ngx.sleep(0.01) ngx.exit(444) end)
            m.sock:receive()
        }
    }
    location = /t {
        content_by_lua_block {
            local before = kit.stat("curr_connections")
            kit.show("while it ran", tonumber(kit.http($TEST_NGINX_SERVER_PORT, "/leave")) - before)
            local function back()
                return kit.eventually(function() return kit.stat("curr_connections") == before end)
            end
            kit.show("all gone", back())
            kit.http($TEST_NGINX_SERVER_PORT, "/raise")
            kit.show("after an error", back())
            kit.http($TEST_NGINX_SERVER_PORT, "/exit")
            kit.show("after ngx.exit in another thread", back())
            kit.show("none pooled", kit.connect(nil, { pool = "left" }):get_reused_times())
        }
    }
--- request
GET /t
--- response_body
while it ran: 10
all gone: true
after an error: true
after ngx.exit in another thread: true
none pooled: 0
--- error_log
on purpose



=== TEST 5: objects that nobody refers to any more
--- private: a connection closes with its object
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local before = kit.stat("curr_connections")
            for i = 1, 30 do kit.connect() end
            collectgarbage()
            collectgarbage()
            kit.show("collected", kit.eventually(function()
                return kit.stat("curr_connections") == before
            end))
        }
    }
--- request
GET /t
--- response_body
collected: true
--- no_error_log
[error]



=== TEST 6: the client goes away
--- private: counts closed connections
--- http_config eval: $::HttpConfig
--- config
    location = /checked {
        lua_check_client_abort on;
        content_by_lua_block {
            local m = kit.connect(kit.shared.port)
            m:get("k")
            kit.shared.went_on = true
        }
    }
    location = /handled {
        lua_check_client_abort on;
        content_by_lua_block {
            ngx.on_abort(function()
                kit.shared.handled = true
                ngx.exit(499)
            end)
            local m = kit.connect(kit.shared.port)
            m:get("k")
            kit.shared.went_on = true
        }
    }
    location = /t {
        content_by_lua_block {
            local closed, opened = 0, 0
            local srv = kit.fake(function(c)
                opened = opened + 1
                while c:line() do end
                closed = closed + 1
            end)
            kit.shared.port = srv.port
            kit.http($TEST_NGINX_SERVER_PORT, "/checked", 0.05)
            kit.show("checked", kit.eventually(function() return closed == 1 end), opened)
            kit.http($TEST_NGINX_SERVER_PORT, "/handled", 0.05)
            kit.show("handled", kit.eventually(function() return closed == 2 end), opened)
            kit.show("state", kit.shared.handled, kit.shared.went_on)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
checked: true, 1
handled: true, 2
state: true, nil
--- no_error_log
[alert]



=== TEST 7: subrequests
--- http_config eval: $::HttpConfig
--- config
    location = /sub {
        internal;
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "sub" })
            kit.show("its own", m:get("k"), m:get_reused_times(), m:set_keepalive())
            kit.show("the parent's", kit.raise_text(kit.shared.m.get, kit.shared.m, "k"))
        }
    }
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.shared.m = m
            m:set("k", "v")
            ngx.print(ngx.location.capture("/sub").body)
            ngx.print(ngx.location.capture("/sub").body)
            local a, b = ngx.location.capture_multi{ { "/sub" }, { "/sub" } }
            kit.show("both", #a.body > 30, #b.body > 30)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
its own: "v", 0, 1
the parent's: "bad request"
its own: "v", 1, 1
the parent's: "bad request"
both: true, true
in step: "yes"
--- no_error_log
[alert]



=== TEST 8: a VM for every request
--- http_config eval: $::HttpConfig . "lua_code_cache off;"
--- config
    location = /one {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "vm" })
            ngx.print(kit.in_step(m), " ", m:get_reused_times(), " ", m:set_keepalive())
        }
    }
    location = /left {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "vm" })
            m.sock:send("version\r\n")
            ngx.print(kit.in_step(kit.connect()))
        }
    }
    location = /t {
        content_by_lua_block {
            for i = 1, 3 do
                ngx.say((kit.http($TEST_NGINX_SERVER_PORT, "/one"):gsub("%d+", "N", 1)))
                ngx.say(kit.http($TEST_NGINX_SERVER_PORT, "/left"))
            end
            collectgarbage()
            local m = kit.connect(nil, { pool = "own" })
            kit.show("in step", kit.in_step(m), m:set_keepalive())
            kit.show("reused", kit.connect(nil, { pool = "own" }):get_reused_times())
        }
    }
--- request
GET /t
--- response_body
yes N 1
yes
yes N 1
yes
yes N 1
yes
in step: "yes", 1
reused: 1
--- error_log
lua_code_cache is off
