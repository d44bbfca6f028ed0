use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: HTTP/1.1 requests in one go
--- private: what is left open is not used again
--- http_config eval: $::HttpConfig
--- config
    location = /one {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "pipelined" })
            ngx.say("<", ngx.var.arg_n, " ", kit.in_step(m), " ", (m:set_keepalive()), ">")
        }
    }
    location = /left {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "left" })
            m.sock:send("version\r\n")
            ngx.say("<", ngx.var.arg_n, " left>")
        }
    }
    location = /t {
        content_by_lua_block {
            local function send(path, n)
                local list = {}
                for i = 1, n do
                    list[i] = "GET " .. path .. "?n=" .. i .. " HTTP/1.1\r\nHost: localhost\r\n"
                        .. (i == n and "Connection: close\r\n" or "") .. "\r\n"
                end
                local sock = ngx.socket.tcp()
                sock:settimeout(2000)
                assert(sock:connect("127.0.0.1", $TEST_NGINX_SERVER_PORT))
                assert(sock:send(list))
                local answer = assert(sock:receive("*a"))
                sock:close()
                return answer
            end
            local right = 0
            for n, what in send("/one", 50):gmatch("<(%d+) ([^>]+)>") do
                if tonumber(n) == right + 1 and what == "yes 1" then right = right + 1 end
            end
            kit.show("right", right)
            local m = kit.connect(nil, { pool = "pipelined" })
            kit.show("one connection", m:get_reused_times())
            local _, left = send("/left", 20):gsub("left>", "")
            kit.show("left open", left)
            kit.show("none pooled", kit.connect(nil, { pool = "left" }):get_reused_times())
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
right: 50
one connection: 50
left open: 20
none pooled: 0
in step: "yes"
--- no_error_log
[error]



=== TEST 2: the client goes away, and nobody looks
--- http_config eval: $::HttpConfig
--- config
    location = /unchecked {
        content_by_lua_block {
            local m = kit.connect(kit.shared.port, { pool = "unchecked" })
            kit.shared.got = kit.vals(m:get("k"))
            kit.shared.kept = kit.vals(m:set_keepalive())
        }
    }
    location = /ignored {
        lua_check_client_abort on;
        content_by_lua_block {
            ngx.on_abort(function() kit.shared.aborted = true end)
            local m = kit.connect(kit.shared.port, { pool = "unchecked" })
            kit.shared.got = kit.vals(m:get("k"))
            kit.shared.kept = kit.vals(m:set_keepalive())
        }
    }
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while c:line() do
                    ngx.sleep(0.08)
                    c:send("VALUE k 0 4\r\nlate\r\nEND\r\n")
                end
            end)
            kit.shared.port = srv.port
            for _, path in ipairs{ "/unchecked", "/ignored" } do
                kit.shared.got, kit.shared.kept = nil, nil
                kit.http($TEST_NGINX_SERVER_PORT, path, 0.02)
                kit.eventually(function() return kit.shared.kept end)
                kit.show(path, kit.shared.got, kit.shared.kept)
            end
            kit.show("aborted", kit.shared.aborted)
            local m = kit.connect(srv.port, { pool = "unchecked" })
            kit.show("reused", m:get_reused_times(), m:get("k"))
            m:close()
            srv:close()
        }
    }
--- request
GET /t
--- response_body
/unchecked: "\"late\", \"0\"", "1"
/ignored: "\"late\", \"0\"", "1"
aborted: true
reused: 2, "late", "0"
--- no_error_log
[alert]



=== TEST 3: the client goes away in every state
--- private: counts closed connections
--- http_config eval: $::HttpConfig
--- config
    lua_check_client_abort on;
    location = /connecting { content_by_lua_block {
        kit.new():connect("127.0.0.1", kit.shared.full)
        kit.shared.went_on = true
    } }
    location = /queued { content_by_lua_block {
        local m = kit.new()
        m:connect("127.0.0.1", kit.port, kit.shared.opts)
        kit.shared.went_on = true
    } }
    location = /writing { content_by_lua_block {
        kit.connect(kit.shared.deaf):set("k", kit.shared.big)
        kit.shared.went_on = true
    } }
    location = /reading { content_by_lua_block {
        kit.connect(kit.shared.silent):get("k")
        kit.shared.went_on = true
    } }
    location = /pipeline { content_by_lua_block {
        local m = kit.connect(kit.shared.silent)
        m:init_pipeline()
        m:get("k")
        m:commit_pipeline()
        kit.shared.went_on = true
    } }
    location = /threads { content_by_lua_block {
        for i = 1, 5 do
            ngx.thread.spawn(function() kit.connect(kit.shared.silent):get("k") end)
        end
    } }
    location = /t {
        content_by_lua_block {
            local full = kit.listen{ backlog = 0 }
            for _ = 1, 4 do full:knock() end
            local opened, closed = 0, 0
            local silent = kit.fake(function(c)
                opened = opened + 1
                while c:line() do end
                closed = closed + 1
            end)
            local deaf = kit.listen()
            kit.shared.full, kit.shared.deaf, kit.shared.silent = full.port, deaf.port, silent.port
            kit.shared.big = string.rep("x", 8 * 1024 * 1024)
            kit.shared.opts = { pool = "q", pool_size = 1, backlog = 1 }
            local holder = kit.connect(nil, kit.shared.opts)
            for _, path in ipairs{ "connecting", "queued", "writing", "reading", "pipeline", "threads" } do
                kit.http($TEST_NGINX_SERVER_PORT, "/" .. path, 0.03)
            end
            kit.show("closed", kit.eventually(function() return closed == 7 end), opened)
            kit.show("went on", kit.shared.went_on)
            local t = ngx.thread.spawn(function()
                return kit.new():connect("127.0.0.1", kit.port, kit.shared.opts)
            end)
            kit.show("the queue", kit.new():connect("127.0.0.1", kit.port, kit.shared.opts))
            kit.show("keep", holder:set_keepalive())
            kit.show("its place is free", ngx.thread.wait(t))
            full:close()
            deaf:close()
            silent:close()
        }
    }
--- request
GET /t
--- response_body
closed: true, 7
went on: nil
the queue: nil, "too many waiting connect operations"
keep: 1
its place is free: true, 1
--- no_error_log
[alert]



=== TEST 4: HTTP/2: streams at once, and streams that are reset
--- private: counts closed connections
--- http_config eval
$::HttpConfig . qq{
    init_worker_by_lua_block {
        -- As much of HTTP/2 as a client needs: frames, and headers without compression.
        local client = {}
        client.__index = client

        local function frame(kind, flags, stream, payload)
            local n = #payload
            return string.char(bit.rshift(n, 16), bit.band(bit.rshift(n, 8), 255),
                bit.band(n, 255), kind, flags, 0, 0, bit.rshift(stream, 8), bit.band(stream, 255))
                .. payload
        end

        function kit.http2(port)
            local sock = ngx.socket.tcp()
            sock:settimeout(2000)
            assert(sock:connect("127.0.0.1", port))
            assert(sock:send("PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" .. frame(4, 0, 0, "")))
            return setmetatable({ sock = sock, bodies = {}, last = -1, done = 0 }, client)
        end

        local function literal(name, value)
            return "\\0" .. string.char(#name) .. name .. string.char(#value) .. value
        end

        -- HEADERS with END_STREAM and END_HEADERS; GET and http are in the static table.
        function client:get(path)
            self.last = self.last + 2
            self.bodies[self.last] = ""
            assert(self.sock:send(frame(1, 5, self.last, "\\x82\\x86" .. literal(":path", path)
                .. literal(":authority", "localhost"))))
            return self.last
        end

        function client:reset(stream)
            self.bodies[stream] = nil
            assert(self.sock:send(frame(3, 0, stream, "\\0\\0\\0\\8")))
        end

        -- Reads until n streams have ended.
        function client:wait(n)
            while self.done < n do
                local head = assert(self.sock:receive(9))
                local a, b, c, kind, flags, _, _, d, e = head:byte(1, 9)
                local payload = ""
                if a * 65536 + b * 256 + c > 0 then
                    payload = assert(self.sock:receive(a * 65536 + b * 256 + c))
                end
                local stream = d * 256 + e
                if kind == 4 and flags == 0 then self.sock:send(frame(4, 1, 0, "")) end
                if kind == 0 then self.bodies[stream] = (self.bodies[stream] or "") .. payload end
                if kind <= 1 and bit.band(flags, 1) == 1 then self.done = self.done + 1 end
            end
        end
    }
    server {
        listen 127.0.0.1:\$TEST_NGINX_RAND_PORT_1 http2;
        location = /one {
            content_by_lua_block {
                local m = kit.connect(nil, { pool = "http2", pool_size = 50 })
                for i = 1, 5 do
                    ngx.sleep(0.001)
                    local res = kit.in_step(m)
                    if res ~= "yes" then return ngx.print(res) end
                end
                ngx.print(ngx.var.arg_n, " yes ", (m:set_keepalive()))
            }
        }
        location = /checked {
            lua_check_client_abort on;
            content_by_lua_block {
                kit.connect(kit.shared.port):get("k")
                kit.shared.checked_went_on = true
            }
        }
    }
}
--- config
    location = /t {
        content_by_lua_block {
            local h2 = kit.http2($TEST_NGINX_RAND_PORT_1)
            local right = 0
            for i = 1, 40 do h2:get("/one?n=" .. i) end
            h2:wait(40)
            for i = 1, 40 do
                if h2.bodies[i * 2 - 1] == i .. " yes 1" then right = right + 1 end
            end
            kit.show("right", right)

            local opened, closed = 0, 0
            local srv = kit.fake(function(c)
                opened = opened + 1
                while c:line() do end
                closed = closed + 1
            end)
            kit.shared.port = srv.port
            local streams = {}
            for i = 1, 5 do streams[i] = h2:get("/checked") end
            kit.eventually(function() return opened == 5 end)
            for i = 1, 5 do h2:reset(streams[i]) end
            kit.show("reset", kit.eventually(function() return closed == 5 end), opened,
                kit.shared.checked_went_on)
            h2:get("/one?n=41")
            h2:wait(41)
            kit.show("another", h2.bodies[91])
            for i = 1, 5 do h2:get("/checked") end
            kit.eventually(function() return opened == 10 end)
            h2.sock:close()
            kit.show("connection closed", kit.eventually(function() return closed == 10 end), opened,
                kit.shared.checked_went_on)
            kit.show("in step", kit.in_step(kit.connect()))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
right: 40
reset: true, 5, nil
another: "41 yes 1"
connection closed: true, 10, nil
in step: "yes"
--- no_error_log
[alert]
