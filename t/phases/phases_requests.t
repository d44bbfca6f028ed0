use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Requests: their other phases, their subrequests and light threads, and how they end.

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: server_rewrite_by_lua
--- http_config eval: $::HttpConfig
--- config
    server_rewrite_by_lua_block {
        if ngx.var.uri == "/t" then
            local m = kit.connect(nil, { pool = "server_rewrite" })
            m:set("k", "from server_rewrite")
            ngx.ctx.result = kit.vals(m:get("k"))
            ngx.ctx.kept = kit.vals(m:set_keepalive())
            ngx.ctx.m = kit.connect(nil, { pool = "carried" })
        end
    }
    location = /t {
        rewrite_by_lua_block {
            kit.shared.carried = kit.vals(ngx.ctx.m:get("k"))
        }
        content_by_lua_block {
            kit.show("there", ngx.ctx.result, ngx.ctx.kept)
            kit.show("carried to rewrite", kit.shared.carried)
            kit.show("carried to content", ngx.ctx.m:get("k"))
            local m = kit.connect(nil, { pool = "server_rewrite" })
            kit.show("kept", m:get_reused_times(), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
there: "\"from server_rewrite\", \"0\"", "1"
carried to rewrite: "\"from server_rewrite\", \"0\""
carried to content: "from server_rewrite", "0"
kept: 1, "yes"
--- no_error_log
[error]



=== TEST 2: an object carried into balancer_by_lua
--- http_config eval
$::HttpConfig . q{
    upstream chosen {
        server 127.0.0.1:1;
        balancer_by_lua_block {
            local m = ngx.ctx.m
            local either = { ["attempt to yield across C-call boundary"] = true,
                ["API disabled in the context of balancer_by_lua*"] = true }
            -- Only the first try counts: it is what finds the object unused.
            local text = kit.raise_text(m.get, m, "k")
            kit.shared.get = kit.shared.get or either[text] or text
            kit.shared.connect = kit.raise_text(m.connect, m, "127.0.0.1", kit.port)
            kit.shared.set_timeout = kit.raise_text(m.set_timeout, m, 1000)
            local balancer = require "ngx.balancer"
            balancer.set_current_peer("127.0.0.1", $TEST_NGINX_SERVER_PORT)
        }
    }
}
--- config
    location = /back { return 200 "back"; }
    location = /front {
        access_by_lua_block { ngx.ctx.m = kit.connect() }
        proxy_pass http://chosen/back;
    }
    location = /t {
        content_by_lua_block {
            kit.show("answer", kit.http($TEST_NGINX_SERVER_PORT, "/front"))
            kit.show("get raises", kit.shared.get)
            kit.show("connect", kit.shared.connect)
            kit.show("set_timeout", kit.shared.set_timeout)
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
answer: "back"
get raises: true
connect: "API disabled in the context of balancer_by_lua*"
set_timeout: "returned 1"
in step: "yes"
--- no_error_log
[alert]



=== TEST 3: subrequests, connections of their own, all at once
--- private: counts closed connections
--- http_config eval: $::HttpConfig
--- config
    location = /sub {
        internal;
        content_by_lua_block {
            local key = ngx.var.arg_key
            local m = kit.connect(nil, { pool = "sub" })
            local wrong = 0
            for i = 1, 10 do
                m:set(key, key .. i)
                ngx.sleep(0.001)
                if m:get(key) ~= key .. i then wrong = wrong + 1 end
            end
            ngx.print(wrong, " ", (m:set_keepalive()))
        }
    }
    location = /waits {
        internal;
        content_by_lua_block {
            local m = kit.connect(kit.shared.port)
            m:set_timeout(ngx.var.arg_ms)
            ngx.print(kit.vals(m:get("k")))
            m:close()
        }
    }
    location = /exits {
        internal;
        content_by_lua_block {
            ngx.thread.spawn(function() kit.connect(kit.shared.port):get("k") end)
            ngx.exit(404)
        }
    }
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local before = kit.stat("curr_connections")
            m:set("k", "the parent's")
            local list = {}
            for i = 1, 20 do list[i] = { "/sub?key=s" .. i } end
            local wrong = 0
            for _, res in ipairs{ ngx.location.capture_multi(list) } do
                if res.body ~= "0 1" then wrong = wrong + 1 end
            end
            kit.show("wrong", wrong)
            kit.show("kept", kit.stat("curr_connections") - before)

            local opened, closed = 0, 0
            local srv = kit.fake(function(c)
                opened = opened + 1
                c:line()
                if c.index == 2 then c:send("VALUE k 0 5\r\nfirst\r\nEND\r\n") end
                while c:line() do end
                closed = closed + 1
            end)
            kit.shared.port = srv.port
            local a, b, c = ngx.location.capture_multi{ { "/waits?ms=50" }, { "/waits?ms=2000" },
                { "/exits" } }
            kit.show("timeout", a.body)
            kit.show("answered", b.body)
            kit.show("exited", c.status)
            kit.show("closed", kit.eventually(function() return closed == 3 end), opened)
            local t = ngx.thread.spawn(function() return m:get("k") end)
            kit.show("while the parent waits", ngx.location.capture("/sub?key=x").body)
            kit.show("the parent", ngx.thread.wait(t))
            kit.show("in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
wrong: 0
kept: 20
timeout: "nil, nil, \"timeout\""
answered: "\"first\", \"0\""
exited: 404
closed: true, 3
while the parent waits: "0 1"
the parent: true, "the parent's", "0"
in step: "yes"
--- no_error_log
[alert]



=== TEST 4: the end of a request in every state
--- private: counts closed connections
--- http_config eval: $::HttpConfig
--- config
    location = /end {
        rewrite_by_lua_block {
            if ngx.var.arg_at ~= "rewrite" then return end
            kit.shared.pending()
            kit.shared[ngx.var.arg_by]()
        }
        access_by_lua_block {
            if ngx.var.arg_at ~= "access" then return end
            kit.shared.pending()
            kit.shared[ngx.var.arg_by]()
        }
        content_by_lua_block {
            kit.shared.pending()
            kit.shared[ngx.var.arg_by]()
        }
    }
    location = /elsewhere { content_by_lua_block { ngx.print(kit.in_step(kit.connect())) } }
    location = /t {
        content_by_lua_block {
            local full = kit.listen{ backlog = 0 }
            for _ = 1, 4 do full:knock() end
            local opened, closed = 0, 0
            local silent = kit.fake(function(c)
                opened = opened + 1
                while c:fill() do c.input = "" end
                closed = closed + 1
            end)
            local deaf = kit.listen()
            local big = string.rep("x", 8 * 1024 * 1024)
            local function spawn(f) ngx.thread.spawn(f) end
            -- An operation in every state: connecting, queued behind it, writing, reading.
            kit.shared.pending = function()
                for i = 1, 2 do
                    spawn(function()
                        kit.new():connect("127.0.0.1", full.port, { pool_size = 1, backlog = 3 })
                    end)
                end
                spawn(function() kit.connect(deaf.port):set("k", big) end)
                spawn(function() kit.connect(silent.port):get("k") end)
                spawn(function()
                    local m = kit.connect(silent.port)
                    m:init_pipeline()
                    m:get("a")
                    m:set("b", "c")
                    m:commit_pipeline()
                end)
                ngx.sleep(0.01)
            end
            kit.shared.exit = function() ngx.exit(403) end
            kit.shared.exec = function() ngx.exec("/elsewhere") end
            kit.shared.redirect = function() ngx.redirect("/elsewhere") end
            kit.shared.error = function() error("on purpose") end
            kit.shared.eof = function() ngx.say("said") ngx.eof() ngx.exit(444) end
            for _, at in ipairs{ "rewrite", "access", "content" } do
                local out = {}
                for _, by in ipairs{ "exit", "exec", "redirect", "error", "eof" } do
                    local answer = kit.http($TEST_NGINX_SERVER_PORT, "/end?at=" .. at .. "&by=" .. by)
                    out[#out + 1] = answer:match("<h1>(%d+)") or answer
                end
                kit.show(at, out)
            end
            kit.show("closed", kit.eventually(function() return closed == 30 end), opened)
            full:close()
            deaf:close()
            local srv = kit.listen{ port = full.port }
            local m = kit.new()
            kit.show("their places are free", m:connect("127.0.0.1", full.port,
                { pool_size = 1, backlog = 0 }))
            silent:close()
            srv:close()
        }
    }
--- request
GET /t
--- response_body
rewrite: {"403", "yes", "302", "500", "said"}
access: {"403", "yes", "302", "500", "said"}
content: {"403", "yes", "302", "500", "said"}
closed: true, 30
their places are free: 1
--- no_error_log
[alert]



=== TEST 5: light threads killed in every state
--- private: counts closed connections
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local full = kit.listen{ backlog = 0 }
            for _ = 1, 4 do full:knock() end
            local closed = 0
            local silent = kit.fake(function(c)
                while c:fill() do c.input = "" end
                closed = closed + 1
            end)
            local deaf = kit.listen()
            local big = string.rep("x", 8 * 1024 * 1024)
            local function kill(name, m, method, ...)
                local t = ngx.thread.spawn(m[method], m, ...)
                ngx.sleep(0.01)
                kit.show(name, ngx.thread.kill(t))
                kit.show("get", m:get("k"))
                kit.show("set_keepalive", m:set_keepalive())
            end
            kill("connecting", kit.new(), "connect", "127.0.0.1", full.port)
            kill("writing", kit.connect(deaf.port), "set", "k", big)
            kill("reading", kit.connect(silent.port), "get", "k")
            kill("reading many", kit.connect(silent.port), "get", { "a", "b" })
            local m = kit.connect(silent.port)
            m:init_pipeline()
            m:get("a")
            kill("committing", m, "commit_pipeline")
            kit.show("closed", kit.eventually(function() return closed == 3 end))

            local opts = { pool = "queue", pool_size = 1, backlog = 1 }
            local first = kit.connect(nil, opts)
            local queued = kit.new()
            kill("queued", queued, "connect", "127.0.0.1", kit.port, opts)
            local t = ngx.thread.spawn(function()
                local n = kit.new()
                return n:connect("127.0.0.1", kit.port, opts), n:get_reused_times(), kit.in_step(n)
            end)
            kit.show("another in its place", kit.new():connect("127.0.0.1", kit.port, opts))
            kit.show("keep", first:set_keepalive())
            kit.show("it gets the connection", ngx.thread.wait(t))
            full:close()
            deaf:close()
            silent:close()
        }
    }
--- request
GET /t
--- response_body
connecting: 1
get: nil, nil, "closed"
set_keepalive: nil, "closed"
writing: 1
get: nil, nil, "closed"
set_keepalive: nil, "closed"
reading: 1
get: nil, nil, "closed"
set_keepalive: nil, "closed"
reading many: 1
get: nil, nil, "closed"
set_keepalive: nil, "closed"
committing: 1
get: nil, nil, "closed"
set_keepalive: nil, "closed"
closed: true
queued: 1
get: nil, nil, "closed"
set_keepalive: nil, "closed"
another in its place: nil, "too many waiting connect operations"
keep: 1
it gets the connection: true, 1, 1, "yes"
--- no_error_log
[alert]



=== TEST 6: waiting for the first of several threads
--- private: the server answers out of order
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                local key = c:line():match("get (.*)")
                local after, reply = key:match("(%d+)_(.*)")
                if reply ~= "never" then ngx.sleep(after / 1000) end
                if reply == "value" then c:send("VALUE " .. key .. " 0 1\r\nv\r\nEND\r\n") end
                if reply == "close" then c:close() end
                while c:line() do end
            end)
            local function get(key, timeout)
                local m = kit.connect(srv.port)
                m:set_timeout(timeout)
                return ngx.thread.spawn(function() return key, m:get(key) end)
            end
            local never = get("0_never", 5000)
            kit.show("a value", ngx.thread.wait(get("500_value", 2000), get("20_value", 1000), never))
            kit.show("a timeout", ngx.thread.wait(get("500_value", 2000), get("300_value", 20), never))
            kit.show("an end", ngx.thread.wait(get("500_value", 2000), get("20_close", 1000), never))
            kit.show("kill", ngx.thread.kill(never))
            local real = kit.fresh()
            real:set("k", "real")
            kit.show("a real one", ngx.thread.wait(get("500_value", 2000),
                ngx.thread.spawn(function() return real:get("k") end)))
            kit.show("a sleep", ngx.thread.wait(get("500_value", 2000),
                ngx.thread.spawn(function() ngx.sleep(0.02) return "slept" end)))
            kit.show("in step", kit.in_step(real))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
a value: true, "20_value", "v", "0"
a timeout: true, "300_value", nil, nil, "timeout"
an end: true, "20_close", nil, nil, "closed"
kill: 1
a real one: true, "real", "0"
a sleep: true, "slept"
in step: "yes"
--- error_log
lua tcp socket read timed out
