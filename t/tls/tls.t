use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head(
    tls  => [qw( good second )],
    # the newest that every ngx_lua offers by default
    http => 'lua_ssl_protocols TLSv1.2;',
);

run_tests();

__DATA__

=== TEST 1: what a handshake returns
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function fresh(...)
                local m = kit.connect(tls.port)
                tls.show("first", m:sslhandshake(...))
                tls.show("again", m:sslhandshake(...))
                kit.show("in step", kit.in_step(m))
                m:close()
            end
            fresh()
            fresh(nil)
            fresh(true)
            fresh(false)
            fresh("x")
            fresh(7, nil, nil, nil)
            fresh({}, false, false, false)
            fresh(nil, "memcached.test", false, 1)
            local m = kit.connect(tls.port)
            local session = m:sslhandshake()
            kit.show("true after a session", m:sslhandshake(false))
            tls.show("and a session after that", m:sslhandshake(nil))
            kit.show("the same one", m:sslhandshake(session) == session)
            m:close()
        }
    }
--- request
GET /t
--- response_body
first: "session"
again: "session"
in step: "yes"
first: "session"
again: "session"
in step: "yes"
first: "session"
again: "session"
in step: "yes"
first: true
again: true
in step: "yes"
first: "session"
again: "session"
in step: "yes"
first: "session"
again: "session"
in step: "yes"
first: "session"
again: "session"
in step: "yes"
first: "session"
again: "session"
in step: "yes"
true after a session: true
and a session after that: "session"
the same one: true
--- no_error_log
[error]



=== TEST 2: commands over TLS
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("connect", m:connect("127.0.0.1", tls.port))
            tls.show("handshake", m:sslhandshake(nil, "memcached.test"))
            kit.show("flush", m:flush_all())
            kit.show("set", m:set("k", "v", 0, 7))
            kit.show("add", m:add("k", "v"))
            kit.show("append", m:append("k", { "w", 1 }))
            kit.show("get", m:get("k"))
            kit.show("miss", m:get("none"))
            m:set("n", 41)
            kit.show("incr", m:incr("n", 1))
            kit.show("multi-get", m:get({ "k", "n", "none" }))
            local v, flags, cas = m:gets("k")
            kit.show("gets", v, flags, type(cas))
            kit.show("cas", m:cas("k", "new", cas))
            kit.show("delete", m:delete("n"))
            m:init_pipeline()
            m:get("k")
            m:set("p", "q")
            m:get("p")
            m:incr("p", 1)
            kit.show("pipeline", m:commit_pipeline())
            kit.show("touch", m:touch("k", 100))
            kit.show("stats", #m:stats() > 10)
            kit.show("version", type(m:version()))
            m.sock:send("mn\r\n")
            kit.show("raw", m.sock:receive())
            kit.show("reused", m:get_reused_times())
            kit.show("quit", m:quit())
            kit.show("after quit", m:get("k"))
        }
    }
--- request
GET /t
--- response_body
connect: 1
handshake: "session"
flush: 1
set: 1
add: nil, "NOT_STORED"
append: 1
get: "vw1", "7"
miss: nil, nil, nil
incr: "42"
multi-get: {k={"vw1", "7"}, n={"42", "0"}}
gets: "vw1", "7", "string"
cas: 1
delete: 1
pipeline: {{"new", "0"}, {1}, {"q", "0"}, {nil, "CLIENT_ERROR cannot increment or decrement non-numeric value"}}, nil
touch: 1
stats: true
version: "string"
raw: "MN"
reused: 0
quit: 1
after quit: nil, nil, "closed"
--- no_error_log
[error]



=== TEST 3: sizes from nothing to a megabyte
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = tls.connect()
            local wrong = 0
            for _, size in ipairs{ 0, 1, 1400, 4095, 4096, 16383, 16384, 16385, 65536, 300000, 1048000 } do
                local value = (("0123456789abcdef"):rep(size / 16 + 1)):sub(1, size)
                if m:set("size" .. size, value) ~= 1 then wrong = wrong + 1 end
                if m:get("size" .. size) ~= value then wrong = wrong + 1 end
            end
            kit.show("wrong", wrong)
            local keys = {}
            for i = 1, 300 do
                keys[i] = "many" .. i
                m:set(keys[i], keys[i]:rep(100))
            end
            local all = m:get(keys)
            for _, key in ipairs(keys) do
                if not all[key] or all[key][1] ~= key:rep(100) then wrong = wrong + 1 end
            end
            kit.show("wrong of many", wrong)
            m:init_pipeline()
            for i = 1, 50 do m:set("piped" .. i, ("p" .. i):rep(100)) m:get("piped" .. i) end
            local res = m:commit_pipeline()
            for i = 1, 50 do
                if res[2 * i][1] ~= ("p" .. i):rep(100) then wrong = wrong + 1 end
            end
            kit.show("wrong in the pipeline", #res, wrong)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
wrong: 0
wrong of many: 0
wrong in the pipeline: 100, 0
in step: "yes"
--- no_error_log
[error]



=== TEST 4: kept alive, and no second handshake
--- private: counts connections
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local records = 0
            local srv = tls.relay(tls.port, function(_, _, record)
                if record:byte(1) == 22 then records = records + 1 end
                return record
            end)
            for i = 1, 4 do
                local m = kit.connect(srv.port)
                if i == 3 then
                    kit.show("handshake", m:sslhandshake(false, "memcached.test"))
                else
                    tls.show("handshake", m:sslhandshake(nil, "memcached.test"))
                end
                kit.show("reused", m:get_reused_times())
                kit.show("in step", kit.in_step(m))
                kit.show("handshake records", records > 0)
                records = 0
                kit.show("set_keepalive", m:set_keepalive(10000, 10))
            end
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
handshake: "session"
reused: 0
in step: "yes"
handshake records: true
set_keepalive: 1
handshake: "session"
reused: 1
in step: "yes"
handshake records: false
set_keepalive: 1
handshake: true
reused: 2
in step: "yes"
handshake records: false
set_keepalive: 1
handshake: "session"
reused: 3
in step: "yes"
handshake records: false
set_keepalive: 1
connections: 1
--- no_error_log
[error]



=== TEST 5: one byte at a time
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local from = 0
            local srv = tls.relay(tls.port, function(c, way, record)
                if way == "up" then return record end
                for i = 1, #record do
                    c:send(record:sub(i, i))
                    ngx.sleep(0)
                end
            end)
            local m = kit.connect(srv.port)
            tls.show("handshake", m:sslhandshake(nil, "memcached.test"))
            kit.show("set", m:set("bytewise", ("value "):rep(50)))
            kit.show("get", m:get("bytewise") == ("value "):rep(50))
            m:set("b2", "x")
            kit.show("multi-get", m:get({ "b2", "none" }))
            kit.show("in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
handshake: "session"
set: 1
get: true
multi-get: {b2={"x", "0"}}
in step: "yes"
--- no_error_log
[error]



=== TEST 6: connections at once, each with its own stream
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function work(id)
                local wrong = 0
                for round = 1, 5 do
                    local m = tls.connect(nil, nil, "memcached.test")
                    local key = "at_once" .. id
                    for i = 1, 5 do
                        local value = (id .. "." .. i .. " "):rep(id * 300)
                        if m:set(key, value) ~= 1 then wrong = wrong + 1 end
                        if m:get(key) ~= value then wrong = wrong + 1 end
                    end
                    m:set_keepalive()
                end
                return wrong
            end
            local threads, wrong = {}, 0
            for id = 1, 20 do threads[id] = ngx.thread.spawn(work, id) end
            for id = 1, 20 do
                local ok, n = ngx.thread.wait(threads[id])
                wrong = wrong + (ok and n or 1000)
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



=== TEST 7: connect with wrong arguments changes nothing
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            -- one that is kept, so that the handshake has to find its peer
            local m = tls.connect(nil, nil, "memcached.test")
            m:set_keepalive()
            kit.show("connect", m:connect("127.0.0.1", tls.port))
            kit.show("no port", m:connect("127.0.0.2"))
            kit.show("handshake", m:sslhandshake(false, "memcached.test"))
            kit.show("in step", kit.in_step(m))
            m:set_keepalive()
            m:connect("127.0.0.1", tls.port)
            kit.show("no port", m.sock:connect("127.0.0.2"))
            kit.show("handshake", m:sslhandshake(false, "memcached.test"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
connect: 1
no port: nil, "missing the port number"
handshake: true
in step: "yes"
no port: nil, "missing the port number"
handshake: true
in step: "yes"
--- no_error_log
[error]
