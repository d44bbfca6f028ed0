use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head( tests => 4 );

run_tests();

__DATA__

=== TEST 1: transforms that yield do not mix requests
--- http_config eval: $::HttpConfig
--- config
    location = /one {
        content_by_lua_block {
            local id = ngx.var.arg_id
            local m = kit.connect(nil, { pool = "mix" }, { key_transform = {
                function(key) ngx.sleep(0.001 + math.random() * 0.003) return key end,
                function(key) ngx.sleep(0.001 + math.random() * 0.003) return key end,
            } })
            local wrong = 0
            for i = 1, 10 do
                local key = "m" .. id .. "." .. i
                if m:set(key, key) ~= 1 then wrong = wrong + 1 end
                if m:get(key) ~= key then wrong = wrong + 1 end
                local res = m:get({ key, key .. "none" })
                if not res or not res[key] or res[key][1] ~= key then wrong = wrong + 1 end
                m:init_pipeline()
                m:get(key)
                m:delete(key)
                res = m:commit_pipeline()
                if not res or res[1][1] ~= key or res[2][1] ~= 1 then wrong = wrong + 1 end
            end
            m:set_keepalive()
            ngx.print(wrong)
        }
    }
    location = /t {
        content_by_lua_block {
            local threads, wrong = {}, 0
            for i = 1, 16 do
                threads[i] = ngx.thread.spawn(kit.http, $TEST_NGINX_SERVER_PORT, "/one?id=" .. i)
            end
            for i = 1, 16 do
                local ok, n = ngx.thread.wait(threads[i])
                wrong = wrong + (ok and tonumber(n) or 1000)
            end
            kit.show("wrong", wrong)
        }
    }
--- request
GET /t
--- response_body
wrong: 0
--- no_error_log
[error]
[alert]



=== TEST 2: a transform that calls memcached itself
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local inner = kit.fresh()
            inner:set("alias", "target")
            local m = kit.connect(nil, nil, { key_transform = {
                function(key) return (inner:get(key)) or key end,
                function(key) inner:incr("seen", 1) return key end,
            } })
            inner:set("seen", 0)
            kit.show("set", m:set("alias", "v"))
            kit.show("inner", inner:get("target"))
            kit.show("get", m:get("alias"))
            kit.show("multi-get", m:get({ "alias", "other" }))
            kit.show("seen", inner:get("seen"))
            local deep = kit.connect(nil, nil, { key_transform = {
                function(key) m:init_pipeline() m:get(key) m:commit_pipeline() return key end,
                function(key) return key end,
            } })
            kit.show("two deep", deep:set("k", "v"), deep:get("k"))
            local same
            same = kit.connect(nil, nil, { key_transform = {
                function(key) if key == "outer" then return "is_" .. same:get("inner") end return key end,
                function(key) return key end,
            } })
            same:set("inner", "x")
            kit.show("on the same object", same:set("outer", "y"), same:get("is_x"))
            kit.show("in step", (m:get("alias")), kit.in_step(inner), kit.in_step(deep), kit.in_step(same))
        }
    }
--- request
GET /t
--- response_body
set: 1
inner: "v", "0"
get: "v", "0"
multi-get: {target={"v", "0"}}
seen: "1", "0"
two deep: 1, "v", "0"
on the same object: 1, "y", "0"
in step: "v", "yes", "yes", "yes"
--- no_error_log
[error]
[alert]



=== TEST 3: transforms that return several values, or none
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh{ key_transform = {
                function(key) return key:gsub(" ", "_") end,
                function(key) return key:gsub("_", " ") end,
            } }
            kit.show("set", m:set("a b", "v"))
            kit.show("get", m:get("a b"))
            kit.show("multi-get", m:get({ "a b", "c d" }))
            kit.show("gets", (m:gets("a b")))
            kit.show("incr", m:set("n n", 1), m:incr("n n", 2))
            kit.show("delete", m:delete("a b"))
            m:init_pipeline()
            m:get("n n")
            m:set("x y", 1)
            kit.show("pipeline", m:commit_pipeline())
            local ret = {}
            local o = kit.fresh{ key_transform = {
                function() return unpack(ret) end, function(key) return key end } }
            for _, bad in ipairs{ "none", true, {}, print } do
                ret = bad == "none" and {} or { bad }
                for _, name in ipairs{ "get", "gets", "set", "delete", "incr", "touch", "cas" } do
                    kit.show(name .. " " .. type(ret[1]), kit.raises(o[name], o, "k", 1, 1))
                end
                kit.show("multi-get " .. type(ret[1]), kit.raises(o.get, o, { "k" }))
            end
            ret = { "k" }
            kit.show("in step", kit.in_step(m), o:set("k", "v"), o:get("k"))
        }
    }
--- request
GET /t
--- response_body eval
my $raises = CORE::join "", map { my $type = $_; map { qq{$_ $type: "raised a string"\n} }
    qw( get gets set delete incr touch cas multi-get ) } qw( nil boolean table function );
qq{set: 1\nget: "v", "0"\nmulti-get: {["a b"]={"v", "0"}}\ngets: "v"\nincr: 1, "3"\ndelete: 1
pipeline: {{"3", "0"}, {1}}, nil\n} . $raises . qq{in step: "yes", 1, "v", "0"\n};
--- no_error_log
[error]
[alert]



=== TEST 4: an error while a reply is read leaves nothing half read
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local broken = "second"
            local m = kit.fresh{ key_transform = {
                function(key) return key end,
                function(key) if key == broken then error("no way back", 0) end return key end,
            } }
            m:set("first", "1")
            m:set("second", "2")
            m:set("third", "3")
            kit.show("multi-get", pcall(m.get, m, { "first", "second", "third" }))
            kit.show("in step or closed", ({ yes = true, ["no: set: closed"] = true })[kit.in_step(m)])
            m:connect("127.0.0.1", kit.port)
            kit.show("multi-gets", pcall(m.gets, m, { "first", "second", "third" }))
            kit.show("in step or closed", ({ yes = true, ["no: set: closed"] = true })[kit.in_step(m)])
            m:connect("127.0.0.1", kit.port)
            kit.show("single keys are not unescaped", m:get("second"))
            -- an error while queueing leaves the other commands of a pipeline alone
            local esc
            local p = kit.fresh{ key_transform = {
                function(key) if esc then error("no way in", 0) end return key end,
                function(key) return key end,
            } }
            p:init_pipeline()
            p:set("a", 1)
            esc = true
            kit.show("queue get", pcall(p.get, p, "a"))
            kit.show("queue set", pcall(p.set, p, "a", 2))
            kit.show("queue incr", pcall(p.incr, p, "a", 2))
            esc = false
            kit.show("queue a bad value", kit.raises(p.set, p, "a", nil))
            p:get("a")
            kit.show("commit", p:commit_pipeline())
            kit.show("in step", kit.in_step(p))
        }
    }
--- request
GET /t
--- response_body
multi-get: false, "no way back"
in step or closed: true
multi-gets: false, "no way back"
in step or closed: true
single keys are not unescaped: "2", "0"
queue get: false, "no way in"
queue set: false, "no way in"
queue incr: false, "no way in"
queue a bad value: "raised a string"
commit: {{1}, {"1", "0"}}, nil
in step: "yes"
--- no_error_log
[alert]
[crit]



=== TEST 5: a busy object sends nothing
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            local gate = kit.fake(function(c)
                c:line()
                ngx.sleep(0.05)
                c:send("VALUE k 0 1\r\nx\r\nEND\r\n")
            end)
            local o = kit.connect(gate.port)
            local t = ngx.thread.spawn(function() return o:get("k") end)
            ngx.sleep(0.01)
            kit.show("set", o:set("k", "w"))
            kit.show("get", o:get("other"))
            kit.show("multi-get", o:get({ "other" }))
            kit.show("version", o:version())
            kit.show("quit", o:quit())
            o:init_pipeline()
            o:get("other")
            kit.show("commit", o:commit_pipeline())
            kit.show("the first", ngx.thread.wait(t))
            kit.show("bytes seen", gate.conns[1].total, gate.conns[1]:drain(0.03))
            gate:close()

            -- with the real server: whatever two threads do, answers fit
            local wrong, busy = 0, 0
            m:set("a", "A")
            m:set("b", "B")
            local function work(key, want)
                for _ = 1, 200 do
                    local v, _, err = m:get(key)
                    if err then
                        if err ~= "socket busy reading" and err ~= "socket busy writing" then
                            wrong = wrong + 1
                        end
                        busy = busy + 1
                        ngx.sleep(0.001)
                    elseif v ~= want then
                        wrong = wrong + 1
                    end
                end
            end
            local t1 = ngx.thread.spawn(work, "a", "A")
            local t2 = ngx.thread.spawn(work, "b", "B")
            ngx.thread.wait(t1)
            ngx.thread.wait(t2)
            kit.show("wrong", wrong, busy > 0)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set: nil, "socket busy reading"
get: nil, nil, "socket busy reading"
multi-get: nil, "socket busy reading"
version: nil, "socket busy reading"
quit: nil, "socket busy reading"
commit: nil, "socket busy reading"
the first: true, "x", "0"
bytes seen: 7, ""
wrong: 0, true
in step: "yes"
--- no_error_log
[error]
[alert]



=== TEST 6: much to write and much to read at once
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set_timeout(3000)
            local value = string.rep("0123456789", 10240)
            for round = 1, 2 do
                m:init_pipeline()
                for i = 1, 200 do
                    m:set("big" .. i % 20, value)
                    m:get("big" .. i % 20)
                end
                local res, err = m:commit_pipeline()
                local right = 0
                for i = 1, res and 200 or 0 do
                    if res[2 * i - 1][1] == 1 and res[2 * i][1] == value then right = right + 1 end
                end
                kit.show("right", right, err)
            end
            m:init_pipeline()
            for i = 1, 200 do m:get("big" .. i % 20) end
            for i = 1, 200 do m:set("big" .. i % 20, value) end
            local res, err = m:commit_pipeline()
            local right = 0
            for i = 1, res and 200 or 0 do
                if res[i][1] == value and res[200 + i][1] == 1 then right = right + 1 end
            end
            kit.show("gets first", right, err)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
right: 200, nil
right: 200, nil
gets first: 200, nil
in step: "yes"
--- no_error_log
[error]
[alert]
--- timeout: 30



=== TEST 7: an object is usable again after its waiter was killed or could not wait
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:line() do end end)
            local m = kit.connect(srv.port)
            local t = ngx.thread.spawn(function() return m:get("k") end)
            ngx.sleep(0.01)
            ngx.thread.kill(t)
            ngx.sleep(0.01)
            kit.show("killed in get", m:connect("127.0.0.1", kit.port), kit.in_step(m))
            m:connect("127.0.0.1", srv.port)
            t = ngx.thread.spawn(function() return m:get("k") end)
            ngx.sleep(0.01)
            ngx.thread.kill(t)
            kit.show("at once", m:connect("127.0.0.1", kit.port), kit.in_step(m))

            local full = kit.listen{ backlog = 0 }
            for _ = 1, 4 do full:knock() end
            m = kit.new()
            t = ngx.thread.spawn(function() return m:connect("127.0.0.1", full.port) end)
            ngx.sleep(0.01)
            ngx.thread.kill(t)
            kit.show("killed in connect", m:connect("127.0.0.1", kit.port), kit.in_step(m))
            full:close()

            local opts = { pool = "killed", pool_size = 1, backlog = 1 }
            local holder = kit.connect(nil, opts)
            m = kit.new()
            t = ngx.thread.spawn(function() return m:connect("127.0.0.1", kit.port, opts) end)
            ngx.sleep(0.01)
            ngx.thread.kill(t)
            holder:set_keepalive()
            kit.show("killed in the queue", m:connect("127.0.0.1", kit.port, opts), kit.in_step(m))

            m = kit.fresh()
            kit.show("in table.sort", (pcall(table.sort, { 3, 1, 2 }, function(a, b)
                m:get("k")
                return a < b
            end)))
            m:close()
            kit.show("after it", m:connect("127.0.0.1", kit.port), kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
killed in get: 1, "yes"
at once: 1, "yes"
killed in connect: 1, "yes"
killed in the queue: 1, "yes"
in table.sort: false
after it: 1, "yes"
--- no_error_log
[alert]
[crit]



=== TEST 8: an object whose owner is gone connects anew
--- private: counts reuse
--- http_config eval: $::HttpConfig
--- config
    location = /owner {
        content_by_lua_block {
            local m = kit.fresh()
            kit.shared.m = m
            local how = ngx.var.arg_how
            if how == "pooled" then m:set_keepalive()
            elseif how == "closed" then m:close()
            elseif how == "unread" then m.sock:send("version\r\n") end
        }
    }
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "left", "unread", "pooled", "closed" } do
                kit.http($TEST_NGINX_SERVER_PORT, "/owner?how=" .. how)
                local m = kit.shared.m
                kit.show(how, m:connect("127.0.0.1", kit.port), m:get_reused_times(), kit.in_step(m))
                kit.show("set_keepalive", m:set_keepalive(0, 1))
                kit.connect():close()
            end
        }
    }
--- request
GET /t
--- response_body
left: 1, 0, "yes"
set_keepalive: 1
unread: 1, 0, "yes"
set_keepalive: 1
pooled: 1, 0, "yes"
set_keepalive: 1
closed: 1, 0, "yes"
set_keepalive: 1
--- no_error_log
[error]
[alert]



=== TEST 9: a connection with a raw command's reply under way is not pooled
--- private: counts connections
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local served = 0
            local srv = kit.fake(function(c)
                served = served + 1
                while c:line() do
                    ngx.sleep(0.05)
                    c:send("VERSION " .. served .. "\r\n")
                end
            end)
            local opts = { pool = "raw" }
            local m = kit.connect(srv.port, opts)
            kit.show("raw", m.sock:send("version\r\n"))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("get_reused_times", m:get_reused_times())
            m = kit.connect(srv.port, opts)
            kit.show("another connection", m:get_reused_times(), m:version())
            kit.show("raw and its reply", m.sock:send("version\r\n"), m.sock:receive())
            kit.show("set_keepalive", m:set_keepalive())
            m = kit.connect(srv.port, opts)
            kit.show("the same connection", m:get_reused_times(), m:version())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
raw: 9
set_keepalive: 1
get_reused_times: nil, "closed"
another connection: 0, "2"
raw and its reply: 9, "VERSION 2"
set_keepalive: 1
the same connection: 1, "2"
--- no_error_log
[error]
[alert]



=== TEST 10: two light threads wait on one object, and one is killed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) ngx.sleep(1.2) end)
            local m = kit.connect(srv.port)
            m:set_timeout(2000)
            local err
            local reader = ngx.thread.spawn(function() err = select(2, m.sock:receive()) end)
            local writer = ngx.thread.spawn(function() m.sock:send(("x"):rep(20000000)) end)
            ngx.sleep(0.02)
            kit.show("kill", ngx.thread.kill(writer))
            local ms = kit.timed(ngx.thread.wait, reader)
            kit.show("the other", err, ms < 1000)
            kit.show("close", m:close())
            srv:close()
            m = kit.connect()
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
kill: 1
the other: "closed", true
close: nil, "closed"
in step: "yes"
--- no_error_log
[error]
[alert]
