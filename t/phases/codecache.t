use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head( http => 'lua_code_cache off;' );

run_tests();

__DATA__

=== TEST 1: requests that end, each with its VM, in every state of a connection
--- private: counts closed connections
--- http_config eval: $::HttpConfig
--- config
    location = /end {
        content_by_lua_block {
            local arg = ngx.req.get_uri_args()
            local function spawn(f) ngx.thread.spawn(f) end
            for i = 1, 2 do
                spawn(function()
                    kit.new():connect("127.0.0.1", arg.full, { pool_size = 1, backlog = 3 })
                end)
            end
            spawn(function() kit.connect(arg.deaf):set("k", string.rep("x", 8 * 1024 * 1024)) end)
            spawn(function() kit.connect(arg.silent):get("k") end)
            spawn(function()
                local m = kit.connect(arg.silent)
                m:init_pipeline()
                m:get("a")
                m:commit_pipeline()
            end)
            local mine = kit.connect(nil, { pool = "vm" })
            kit.in_step(mine)
            ngx.sleep(0.01)
            if arg.by == "exit" then ngx.exit(403) end
            if arg.by == "exec" then ngx.exec("/elsewhere") end
            if arg.by == "error" then error("on purpose") end
            if arg.by == "wait" then ngx.sleep(1) end
        }
    }
    location = /abort {
        lua_check_client_abort on;
        content_by_lua_block { kit.connect(ngx.var.arg_silent):get("k") }
    }
    location = /elsewhere { content_by_lua_block { ngx.print(kit.in_step(kit.connect())) } }
    location = /t {
        content_by_lua_block {
            local before = kit.stat("curr_connections")
            local full = kit.listen{ backlog = 0 }
            for _ = 1, 4 do full:knock() end
            local opened, closed = 0, 0
            local silent = kit.fake(function(c)
                opened = opened + 1
                while c:line() do end
                closed = closed + 1
            end)
            local deaf = kit.listen()
            local ports = "&full=" .. full.port .. "&deaf=" .. deaf.port .. "&silent=" .. silent.port
            for _ = 1, 5 do
                local out = {}
                for _, by in ipairs{ "exit", "exec", "error" } do
                    local answer = kit.http($TEST_NGINX_SERVER_PORT, "/end?by=" .. by .. ports)
                    out[#out + 1] = answer:match("<h1>(%d+)") or answer
                end
                kit.show("ended", out)
                kit.http($TEST_NGINX_SERVER_PORT, "/abort?" .. ports, 0.02)
            end
            kit.show("closed", kit.eventually(function() return closed == 35 end), opened)
            kit.show("connections", kit.eventually(function()
                return kit.stat("curr_connections") == before
            end))
            collectgarbage()
            kit.show("in step", kit.in_step(kit.connect()))
            full:close()
            deaf:close()
            silent:close()
        }
    }
--- request
GET /t
--- response_body
ended: {"403", "yes", "500"}
ended: {"403", "yes", "500"}
ended: {"403", "yes", "500"}
ended: {"403", "yes", "500"}
ended: {"403", "yes", "500"}
closed: true, 35
connections: true
in step: "yes"
--- error_log
lua_code_cache is off



=== TEST 2: kept connections, timers and threads
--- http_config eval: $::HttpConfig
--- config
    location = /keep {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "kept" })
            ngx.print(kit.in_step(m), " ", (m:set_keepalive()), " ")
            m = kit.connect(nil, { pool = "kept" })
            ngx.print(m:get_reused_times() > 0, " ", (m:set_keepalive(60000)))
        }
    }
    location = /timer {
        content_by_lua_block {
            local arg = ngx.var.arg_key
            ngx.timer.at(0, function()
                local m = kit.connect(nil, { pool = "timer" })
                ngx.sleep(0.02)
                m:set(arg, kit.in_step(m))
                m:set_keepalive()
            end)
        }
    }
    location = /threads {
        content_by_lua_block {
            local threads, right = {}, 0
            for i = 1, 10 do
                threads[i] = ngx.thread.spawn(function()
                    local m = kit.connect(nil, { pool = "threads", pool_size = 3, backlog = 10 })
                    local res = kit.in_step(m)
                    m:set_keepalive()
                    return res
                end)
            end
            for i = 1, 10 do
                local _, res = ngx.thread.wait(threads[i])
                if res == "yes" then right = right + 1 end
            end
            ngx.print(right)
        }
    }
    location = /t {
        content_by_lua_block {
            local function get(path) return kit.http($TEST_NGINX_SERVER_PORT, path) end
            local m = kit.fresh()
            for i = 1, 3 do
                kit.show("keep", get("/keep"))
                get("/timer?key=timer" .. i)
                kit.show("timer", kit.eventually(function() return (m:get("timer" .. i)) == "yes" end))
                kit.show("threads", get("/threads"))
            end
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
keep: "yes 1 true 1"
timer: true
threads: "10"
keep: "yes 1 true 1"
timer: true
threads: "10"
keep: "yes 1 true 1"
timer: true
threads: "10"
in step: "yes"
--- error_log
lua_code_cache is off
