use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: rewrite, access, content
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        rewrite_by_lua_block {
            local m = kit.connect(nil, { pool = "phase" })
            m:set("k", "from rewrite")
            ngx.ctx.rewrite = kit.vals(m:get("k"))
            m:set_keepalive()
            ngx.ctx.m = kit.connect(nil, { pool = "ctx" })
        }
        access_by_lua_block {
            local m = kit.connect(nil, { pool = "phase" })
            ngx.ctx.access = kit.vals(m:get("k"))
            ngx.ctx.reused = m:get_reused_times()
            m:set_keepalive()
        }
        content_by_lua_block {
            kit.show("rewrite", ngx.ctx.rewrite)
            kit.show("access", ngx.ctx.access, ngx.ctx.reused)
            local m = kit.connect(nil, { pool = "phase" })
            kit.show("content", m:get_reused_times(), m:get("k"))
            kit.show("an object made in rewrite", ngx.ctx.m:get("k"))
            kit.show("in step", kit.in_step(ngx.ctx.m))
        }
    }
--- request
GET /t
--- response_body
rewrite: "\"from rewrite\", \"0\""
access: "\"from rewrite\", \"0\"", 1
content: 2, "from rewrite", "0"
an object made in rewrite: "from rewrite", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 2: timers
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local out = {}
            local function at(name, f)
                local done
                assert(ngx.timer.at(0, function(...)
                    out[name] = kit.vals(pcall(f, ...))
                    done = true
                end))
                kit.eventually(function() return done end)
                ngx.say(name, ": ", out[name])
            end
            at("commands", function()
                local m = kit.connect(nil, { pool = "timer" })
                m:set("k", "from a timer")
                local v = m:get("k")
                return v, m:set_keepalive()
            end)
            at("reuse", function()
                local m = kit.connect(nil, { pool = "timer" })
                return m:get_reused_times(), kit.in_step(m), m:set_keepalive()
            end)
            at("left open", function()
                kit.shared.m = kit.connect(nil, { pool = "left" })
                return kit.in_step(kit.shared.m)
            end)
            kit.show("afterwards", kit.shared.m:get("k"))
            at("threads", function()
                local t = {}
                for i = 1, 5 do
                    t[i] = ngx.thread.spawn(function()
                        return kit.in_step(kit.connect(nil, { pool = "timer" }))
                    end)
                end
                local n = 0
                for i = 1, 5 do
                    local _, res = ngx.thread.wait(t[i])
                    if res == "yes" then n = n + 1 end
                end
                return n
            end)
            at("timeout", function()
                local srv = kit.listen()
                local m = kit.connect(srv.port)
                m:set_timeout(20)
                local _, _, err = m:get("k")
                srv:close()
                return err, m:connect("127.0.0.1", kit.port)
            end)
            local m = kit.new()
            kit.shared.mine = kit.connect()
            at("object of an active request", function()
                return kit.raise_text(kit.shared.mine.get, kit.shared.mine, "k")
            end)
            kit.show("still mine", kit.in_step(kit.shared.mine))
            local n = 0
            assert(ngx.timer.every(0.01, function()
                if n >= 3 then return end
                local c = kit.connect(nil, { pool = "every" })
                if kit.in_step(c) == "yes" and c:set_keepalive() then n = n + 1 end
            end))
            kit.show("every", kit.eventually(function() return n >= 3 end))
        }
    }
--- request
GET /t
--- response_body
commands: true, "from a timer", 1
reuse: true, 1, "yes", 1
left open: true, "yes"
afterwards: nil, nil, "closed"
threads: true, 5
timeout: true, "timeout", 1
object of an active request: true, "bad request"
still mine: "yes"
every: true
--- error_log
lua tcp socket read timed out



=== TEST 3: a timer still busy when the request ends
--- http_config eval: $::HttpConfig
--- config
    location = /start {
        content_by_lua_block {
            ngx.timer.at(0, function()
                ngx.sleep(0.03)
                local m = kit.connect(nil, { pool = "late" })
                kit.shared.late = kit.in_step(m)
                m:set_keepalive()
            end)
        }
    }
    location = /t {
        content_by_lua_block {
            kit.http($TEST_NGINX_SERVER_PORT, "/start")
            kit.show("soon", kit.shared.late)
            kit.eventually(function() return kit.shared.late end)
            kit.show("late", kit.shared.late)
            kit.show("reused", kit.connect(nil, { pool = "late" }):get_reused_times())
        }
    }
--- request
GET /t
--- response_body
soon: nil
late: "yes"
reused: 1
--- no_error_log
[error]



=== TEST 4: init_by_lua and init_worker_by_lua
--- http_config eval
TestEnv::http_config() . qq{
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        local memcached = require "resty.memcached"
        kit.shared.init = kit.raise_text(memcached.new, memcached)
        kit.shared.version = memcached._VERSION
    }
    init_worker_by_lua_block {
        local memcached = require "resty.memcached"
        kit.shared.worker = kit.raise_text(memcached.new, memcached)
        ngx.timer.at(0, function()
            kit.shared.timer = kit.in_step(kit.connect())
        end)
    }
}
--- config
    location = /t {
        content_by_lua_block {
            kit.show("init", kit.shared.init)
            kit.show("required there", kit.shared.version)
            kit.show("init_worker", kit.shared.worker)
            kit.eventually(function() return kit.shared.timer end)
            kit.show("a timer of init_worker", kit.shared.timer)
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
init: "no request found"
required there: "0.17"
init_worker: "API disabled in the context of init_worker_by_lua*"
a timer of init_worker: "yes"
in step: "yes"
--- no_error_log
[error]



=== TEST 5: set_by_lua, header_filter, body_filter, log
--- http_config eval: $::HttpConfig
--- config
    location = /phases {
        set_by_lua_block $v {
            local memcached = require "resty.memcached"
            kit.shared.set = kit.raise_text(memcached.new, memcached)
            return "v"
        }
        content_by_lua_block { ngx.print("body") }
        header_filter_by_lua_block {
            local memcached = require "resty.memcached"
            kit.shared.header = kit.raise_text(memcached.new, memcached)
        }
        body_filter_by_lua_block {
            local memcached = require "resty.memcached"
            kit.shared.body = kit.raise_text(memcached.new, memcached)
        }
        log_by_lua_block {
            local memcached = require "resty.memcached"
            kit.shared.log = kit.raise_text(memcached.new, memcached)
        }
    }
    location = /t {
        content_by_lua_block {
            kit.http($TEST_NGINX_SERVER_PORT, "/phases")
            ngx.sleep(0.01)
            for _, phase in ipairs{ "set", "header", "body", "log" } do
                kit.show(phase, kit.shared[phase])
            end
        }
    }
--- request
GET /t
--- response_body
set: "API disabled in the context of set_by_lua*"
header: "API disabled in the context of header_filter_by_lua*"
body: "API disabled in the context of body_filter_by_lua*"
log: "API disabled in the context of log_by_lua*"
--- no_error_log
[error]



=== TEST 6: balancer_by_lua
--- http_config eval
$::HttpConfig . q{
    upstream chosen {
        server 127.0.0.1:1;
        balancer_by_lua_block {
            local memcached = require "resty.memcached"
            kit.shared.balancer = kit.raise_text(memcached.new, memcached)
            local balancer = require "ngx.balancer"
            balancer.set_current_peer("127.0.0.1", $TEST_NGINX_SERVER_PORT)
        }
    }
}
--- config
    location = /back { return 200 "back"; }
    location = /front { proxy_pass http://chosen/back; }
    location = /t {
        content_by_lua_block {
            kit.show("answer", kit.http($TEST_NGINX_SERVER_PORT, "/front"))
            kit.show("balancer", kit.shared.balancer)
        }
    }
--- request
GET /t
--- response_body
answer: "back"
balancer: "API disabled in the context of balancer_by_lua*"
--- no_error_log
[error]



=== TEST 7: an object carried into a phase that cannot wait
--- http_config eval: $::HttpConfig
--- config
    location = /carry {
        content_by_lua_block {
            ngx.ctx.m = kit.connect()
            ngx.print("body")
        }
        header_filter_by_lua_block {
            local m = ngx.ctx.m
            kit.shared.get = kit.raise_text(m.get, m, "k")
            kit.shared.set_timeout = kit.raise_text(m.set_timeout, m, 100)
        }
        log_by_lua_block {
            local m = ngx.ctx.m
            kit.shared.log = kit.raise_text(m.connect, m, "127.0.0.1", kit.port)
        }
    }
    location = /t {
        content_by_lua_block {
            kit.http($TEST_NGINX_SERVER_PORT, "/carry")
            ngx.sleep(0.02)
            local either = { ["attempt to yield across C-call boundary"] = true,
                ["API disabled in the context of header_filter_by_lua*"] = true }
            kit.show("get raises", either[kit.shared.get] or kit.shared.get)
            kit.show("set_timeout", kit.shared.set_timeout)
            kit.show("connect", kit.shared.log:match("API disabled in the context of log_by_lua%*")
                or kit.shared.log)
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
get raises: true
set_timeout: "returned 1"
connect: "API disabled in the context of log_by_lua*"
in step: "yes"
--- no_error_log
[alert]
