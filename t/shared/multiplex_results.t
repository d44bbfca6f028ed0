use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Results over shared connections: all commands, phases, sizes and addresses.

our $HttpConfig = TestEnv::head( multiplex => 2 );

worker_connections(512);
run_tests();

__DATA__

=== TEST 1: many light threads, all commands, each with its own results
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.fresh()
            local r = mux.at_once(64, function(i)
                local wrong = {}
                for _, address in ipairs{ "127.0.0.1", kit.unix } do
                    local m = kit.new()
                    assert(m:connect(address, kit.port))
                    local k, v = "k" .. i, "value" .. i
                    local function check(label, want, ...)
                        local got = kit.vals(kit.trim(...))
                        if got ~= want then wrong[#wrong + 1] = label .. ": " .. got end
                    end
                    for _ = 1, 5 do
                        check("set", "1", m:set(k, v, 0, i))
                        check("get", '"' .. v .. '", "' .. i .. '"', m:get(k))
                        check("add", 'nil, "NOT_STORED"', m:add(k, "x"))
                        check("append", "1", m:append(k, "+"))
                        check("prepend", "1", m:prepend(k, "-"))
                        check("get", '"-' .. v .. '+", "' .. i .. '"', m:get(k))
                        check("replace", "1", m:replace(k, 100 + i))
                        check("incr", '"' .. i + 105 .. '"', m:incr(k, 5))
                        check("decr", '"' .. 100 + i .. '"', m:decr(k, 5))
                        local value, flags, unique, err = m:gets(k)
                        check("gets", '"' .. 100 + i .. '", "0"', value, flags, err)
                        check("cas", "1", m:cas(k, v, unique))
                        check("cas", 'nil, "EXISTS"', m:cas(k, v, unique))
                        check("touch", "1", m:touch(k, 100))
                        check("multi-get", kit.vals({ [k] = { v, "0" } }), m:get{ k, "missing" .. i })
                        m:init_pipeline()
                        m:set(k, "p" .. i)
                        m:get(k)
                        m:incr(k, 1)
                        m:delete(k)
                        m:get(k)
                        check("pipeline", kit.vals({ { 1 }, { "p" .. i, "0" },
                            { nil, "CLIENT_ERROR cannot increment or decrement non-numeric value" },
                            { 1 }, {} }), m:commit_pipeline())
                        check("delete", 'nil, "NOT_FOUND"', m:delete(k))
                        check("get", "nil", m:get(k))
                        check("version", '"VERSION"', (m:version() or ""):match("^%d") and "VERSION")
                    end
                    -- from here on it has a connection of its own
                    check("stats", "true", #(m:stats() or {}) > 20)
                    check("get", "nil", m:get(k))
                    check("keep", "1", m:set_keepalive())
                end
                return #wrong, wrong[1]
            end)
            kit.show("right", mux.count(r, 0))
            for i = 1, 64 do
                if r[i][1] ~= 0 then kit.show("wrong", i, r[i][1], r[i][2]) break end
            end
        }
    }
--- request
GET /t
--- response_body
right: 64
--- no_error_log
[error]
--- timeout: 10



=== TEST 2: large values beside small ones
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local large = ("0123456789"):rep(100000)
            m:set("small", "small")
            local r = mux.at_once(20, function(i)
                local m = kit.connect()
                for _ = 1, 5 do
                    if i <= 4 then
                        local value = large:sub(1, -i)
                        local ok, err = m:set("large" .. i, value)
                        if ok ~= 1 then return err end
                        if m:get("large" .. i) ~= value then return "another value" end
                    else
                        local v, _, err = m:get("small")
                        if v ~= "small" then return err or "no" end
                        v = m:get{ "small", "large9" }
                        if v.small[1] ~= "small" or v.large9 then return "multi" end
                    end
                end
                return "right"
            end)
            kit.show("right", mux.count(r, "right"))
            m:connect("127.0.0.1", kit.port)
            m:init_pipeline()
            for i = 1, 4 do m:get("large" .. i) end
            m:set("large5", large)
            m:get("large5")
            local res = m:commit_pipeline()
            local right = 0
            for i = 1, 4 do
                if res[i][1] == large:sub(1, -i) then right = right + 1 end
            end
            kit.show("pipeline", right, res[5][1], res[6][1] == large)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
right: 20
pipeline: 4, 1, true
in step: "yes"
--- no_error_log
[error]
--- timeout: 10



=== TEST 3: a value beyond lua_memcached_max_value_size
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_max_value_size 1000;
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            kit.fresh():set("large", ("v"):rep(2000))
            local memcs = {}
            for i = 1, 3 do memcs[i] = kit.connect() end
            kit.show("set", memcs[1]:set("small", "v"))
            local r = mux.at_once(3, function(i)
                if i == 3 then return nil, memcs[3]:set("small", "v") end
                return memcs[i]:get(i == 2 and "large" or "small" .. i)
            end)
            kit.show("first", unpack(r[1], 1, 3))
            kit.show("large", unpack(r[2], 1, 3))
            kit.show("third", unpack(r[3], 1, 3))
            memcs[2]:connect("127.0.0.1", kit.port)
            kit.show("in step", kit.in_step(memcs[2]))
        }
    }
--- request
GET /t
--- response_body
set: 1
first: nil, nil, nil
large: nil, nil, "bad reply: value of 2000 bytes exceeds the limit of 1000"
third: nil, nil, "closed"
in step: "yes"
--- no_error_log
[alert]



=== TEST 4: every phase that waits, subrequests, timers
--- http_config eval
$::HttpConfig . q{
    init_worker_by_lua_block {
        ngx.timer.at(0, function()
            kit.early = kit.in_step(kit.connect())
        end)
    }
}
--- config
    location = /phases {
        rewrite_by_lua_block { ngx.ctx.rewrite = kit.in_step(kit.connect()) }
        access_by_lua_block { ngx.ctx.access = kit.in_step(kit.connect()) }
        content_by_lua_block {
            ngx.print(ngx.ctx.rewrite, " ", ngx.ctx.access, " ", kit.in_step(kit.connect()))
        }
    }
    location = /sub {
        content_by_lua_block { ngx.print(kit.in_step(kit.connect()), " ", ngx.var.arg_n) }
    }
    location = /t {
        content_by_lua_block {
            kit.show("phases", kit.http($TEST_NGINX_SERVER_PORT, "/phases"))
            local m = kit.connect()
            local list = {}
            for i = 1, 10 do list[i] = { "/sub?n=" .. i } end
            local t = ngx.thread.spawn(function() return kit.in_step(m) end)
            local right = 0
            for i, res in ipairs{ ngx.location.capture_multi(list) } do
                if res.body == "yes " .. i then right = right + 1 end
            end
            kit.show("subrequests", right, ngx.thread.wait(t))
            local done = {}
            for i = 1, 10 do
                ngx.timer.at(0, function()
                    local result = kit.in_step(kit.connect())
                    done[#done + 1] = result
                end)
            end
            kit.show("timers", kit.eventually(function() return #done == 10 end), #done, done[1], done[10])
            kit.show("a timer of init_worker", kit.eventually(function() return kit.early end), kit.early)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
phases: "yes yes yes"
subrequests: 10, true, "yes"
timers: true, 10, "yes", "yes"
a timer of init_worker: true, "yes"
in step: "yes"
--- no_error_log
[error]



=== TEST 5: an object of another request
--- http_config eval: $::HttpConfig
--- config
    location = /owner {
        content_by_lua_block {
            kit.shared.m = kit.connect()
            ngx.print(kit.in_step(kit.shared.m))
        }
    }
    location = /t {
        content_by_lua_block {
            kit.show("owner", kit.http($TEST_NGINX_SERVER_PORT, "/owner"))
            local m = kit.shared.m
            kit.show("get", kit.raises(m.get, m, "k"))
            kit.show("connect", m:connect("127.0.0.1", kit.port), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body_like
owner: "yes"
get: .*
connect: 1, "yes"
--- no_error_log
[alert]



=== TEST 6: where nothing can wait
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local m, other = kit.connect(srv.port), kit.connect(srv.port)
            local function sorted(f)
                return kit.raise_text(table.sort, { 3, 1, 2 }, function(a, b) f() return a < b end)
            end
            kit.show("get", sorted(function() return m:get("k") end))
            kit.show("set", sorted(function() return m:set("k", "v") end))
            kit.show("in one go", sorted(function()
                m:connect("127.0.0.1", srv.port)
                return m:get("k")
            end))
            kit.show("others", other:get("other"))
            m:connect("127.0.0.1", srv.port)
            kit.show("afterwards", m:get("after"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: "attempt to yield across C-call boundary"
set: "attempt to yield across C-call boundary"
in one go: "attempt to yield across C-call boundary"
others: "other", "0"
afterwards: "after", "0"
--- no_error_log
[alert]



=== TEST 7: small values do not wait for a large one while there is another connection
--- whole: compares times
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2;
    location = /t {
        content_by_lua_block {
            local value = ("0123456789abcdef"):rep(65536)
            local srv = mux.server(function(line, c)
                if line ~= "get large" then return end
                c:send("VALUE large 0 " .. #value .. "\r\n" .. value:sub(1, 100000))
                c:trickle(value:sub(100001), 65536, 0.05)
                return "\r\nEND\r\n"
            end)
            local memcs, threads = {}, {}
            for i = 1, 9 do memcs[i] = kit.connect(srv.port) end
            srv.held = true
            for i = 1, 2 do
                threads[i] = ngx.thread.spawn(function() return (memcs[i]:get("k")) end)
                ngx.sleep(0.02)
            end
            srv.held = false
            for i = 1, 2 do ngx.thread.wait(threads[i]) end
            kit.show("connections", srv.accepted)

            local done
            local large = ngx.thread.spawn(function()
                local got = memcs[9]:get("large")
                done = true
                return got == value
            end)
            ngx.sleep(0.05)
            local r = mux.at_once(8, function(i)
                ngx.sleep(0.001 * i)
                for n = 1, 20 do
                    if memcs[i]:get("k" .. n) ~= "k" .. n then return "no" end
                end
                return done and "late" or "right"
            end)
            kit.show("small ones meanwhile", mux.count(r, "right"))
            kit.show("large", ngx.thread.wait(large))
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
connections: 2
small ones meanwhile: 8
large: true, true
connections: 2
--- no_error_log
[error]
--- timeout: 10
