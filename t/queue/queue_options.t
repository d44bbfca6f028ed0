use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Arguments of a background queue, limits, errors; keys and values.

our $HttpConfig = TestEnv::head(
    skip => 'the library has no queue',
    init => q{
        queue = require "resty.memcached.queue"
        function drained(q)
            return kit.eventually(function() return q:pending() == 0 end, 30)
        end
    },
);

run_tests();

__DATA__

=== TEST 1: wrong arguments are named with what was seen
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local new = queue.new
            kit.show("no host", new())
            kit.show("host", new({}, 1))
            kit.show("empty", new("", 1))
            kit.show("no port", new("127.0.0.1"))
            kit.show("port", new("127.0.0.1", "x"))
            kit.show("large", new("127.0.0.1", 65536))
            kit.show("half", new("127.0.0.1", 1.5))
            kit.show("options", new("127.0.0.1", 1, "x"))
            local function option(name, value)
                kit.show(name, new("127.0.0.1", 1, { [name] = value }))
            end
            option("max_operation", 5)
            option(7, 5)
            option("max_operations", 0)
            option("max_operations", "5")
            option("max_size", -1)
            option("max_size", 1.5)
            option("timeout", 0 / 0)
            option("timeout", true)
            option("key_transform", {})
            option("key_transform", "x")
            option("multiplex", 2)
        }
    }
--- request
GET /t
--- response_body
no host: nil, "bad host: expecting an address, a name or unix:/path, got a nil"
host: nil, "bad host: expecting an address, a name or unix:/path, got a table"
empty: nil, "bad host: expecting an address, a name or unix:/path, got \"\""
no port: nil, "bad port: expecting an integer from 1 to 65535, got a nil"
port: nil, "bad port: expecting an integer from 1 to 65535, got \"x\""
large: nil, "bad port: expecting an integer from 1 to 65535, got 65536"
half: nil, "bad port: expecting an integer from 1 to 65535, got 1.5"
options: nil, "bad options: expecting a table, got \"x\""
max_operation: nil, "unknown option \"max_operation\" of queue.new: it takes key_transform, max_operations, max_size, timeout"
7: nil, "unknown option 7 of queue.new: it takes key_transform, max_operations, max_size, timeout"
max_operations: nil, "bad max_operations option: expecting a positive integer, got 0"
max_operations: nil, "bad max_operations option: expecting a positive integer, got \"5\""
max_size: nil, "bad max_size option: expecting a positive integer, got -1"
max_size: nil, "bad max_size option: expecting a positive integer, got 1.5"
timeout: nil, "bad timeout option: expecting a positive integer, got NaN"
timeout: nil, "bad timeout option: expecting a positive integer, got true"
key_transform: nil, "bad key_transform option: expecting { escape, unescape }, got a table whose first element is a nil"
key_transform: nil, "bad key_transform option: expecting { escape, unescape }, got \"x\""
multiplex: nil, "unknown option \"multiplex\" of queue.new: it takes key_transform, max_operations, max_size, timeout"
--- no_error_log
[error]



=== TEST 2: what memcached would refuse is refused, and takes no room
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local q = queue.new("127.0.0.1", kit.port, { max_operations = 1 })
            local raw = queue.new("127.0.0.1", kit.port, {
                max_operations = 1,
                key_transform = { function(key) return key, "second" end },
            })
            kit.show("long", q:set(("x"):rep(251), 1))
            kit.show("empty", q:set("", 1))
            kit.show("space", raw:set("a b", 1))
            kit.show("line", raw:set("a\r\nflush_all", 1))
            kit.show("exptime", q:set("k", 1, "x"))
            kit.show("flags", q:set("k", 1, 0, -1))
            kit.show("delta", q:incr("k", "x"))
            kit.show("touch", q:touch("k", "x"))
            kit.show("key", kit.raise_text(raw.set, raw, {}, 1))
            kit.show("value", kit.raise_text(q.set, q, "k"))
            kit.show("pending", q:pending())
            kit.show("good", raw:set("a%20b", 1))
            kit.show("drained", drained(q))
            kit.show("seen", kit.connect():get("a b"))
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
long: nil, "CLIENT_ERROR bad command line format"
empty: nil, "ERROR"
space: nil, "bad key: contains whitespace or control characters"
line: nil, "bad key: contains whitespace or control characters"
exptime: nil, "CLIENT_ERROR bad command line format"
flags: nil, "CLIENT_ERROR bad command line format"
delta: nil, "CLIENT_ERROR invalid numeric delta argument"
touch: nil, "CLIENT_ERROR invalid exptime argument"
key: "bad key argument (string or number expected, got table)"
value: "bad value argument (string or number expected, got nil)"
pending: 0, 0
good: 1
drained: true
seen: "1", "0"
counts: {done=1, dropped=0, full=0, lost=0, refused=0, taken=1, unmet=0}
--- error_log
lua memcached command refused: set: key



=== TEST 3: a key transform that yields or raises: nothing is taken
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local how
            local q = queue.new("127.0.0.1", kit.port, { key_transform = { function(key) return how(key) end } })
            how = function() coroutine.yield() return "k" end
            local co = coroutine.create(function() return q:set("yields", 1) end)
            local ok, err = coroutine.resume(co)
            kit.show("yields", ok, (err:gsub("^.-:%d+: ", "")))
            how = function() error("raised", 0) end
            kit.show("raises", kit.raise_text(q.delete, q, "x"))
            how = function() return nil end
            kit.show("nil", kit.raise_text(q.delete, q, "x"))
            how = function() return 12 end
            kit.show("number", q:set("x", "of 12"))
            kit.show("drained", drained(q))
            kit.show("seen", kit.connect():get(12))
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
yields: false, "attempt to yield across C-call boundary"
raises: "raised"
nil: "bad key argument (string or number expected, got nil)"
number: 1
drained: true
seen: "of 12", "0"
counts: {done=1, dropped=0, full=0, lost=0, refused=0, taken=1, unmet=0}
--- no_error_log
[error]



=== TEST 4: full by operations and by bytes; each object has its own limits
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local few = queue.new("127.0.0.1", kit.port, { max_operations = 3 })
            local small = queue.new("127.0.0.1", kit.port, { max_size = 70 })
            local wide = queue.new("127.0.0.1", kit.port)
            for i = 1, 5 do kit.show("few", few:set("few" .. i, i)) end
            kit.show("wide", wide:set("wide", 1))
            kit.show("small", small:set("small", ("x"):rep(200)))
            kit.show("again", small:set("small", 1))
            kit.show("pending", wide:pending())
            kit.show("drained", drained(wide))
            kit.show("small", small:set("small", ("x"):rep(200)))
            kit.show("small", small:set("small", 1))
            kit.show("drained", drained(wide))
            kit.show("seen", #kit.connect():get("small"))
            kit.show("counts", wide:counts())
        }
    }
--- request
GET /t
--- response_body
few: 1
few: 1
few: 1
few: nil, "queue full"
few: nil, "queue full"
wide: 1
small: nil, "queue full"
again: nil, "queue full"
pending: 4, 76
drained: true
small: 1
small: nil, "queue full"
drained: true
seen: 200
counts: {done=5, dropped=0, full=5, lost=0, refused=0, taken=5, unmet=0}
--- error_log
lua memcached: queue full: see max_operations and max_size of lua_memcached_queue



=== TEST 5: the directive, where the object was made; options come first
--- http_config eval: $::HttpConfig . "lua_memcached_queue max_operations=2;\n"
--- config
    location = /room {
        content_by_lua_block {
            local function room(q)
                local n = 0
                while n < 9 and q:set("room", 1) do n = n + 1 end
                drained(q)
                return n
            end
            ngx.say(room(queue.new("127.0.0.1", kit.port)), " ",
                room(queue.new("127.0.0.1", kit.port, { max_operations = 6 })))
        }
    }
    location = /more {
        lua_memcached_queue max_operations=4 max_size=1m timeout=2s;
        content_by_lua_block {
            local q = queue.new("127.0.0.1", kit.port)
            local n = 0
            while n < 9 and q:set("room", 1) do n = n + 1 end
            drained(q)
            ngx.say(n)
        }
    }
    location = /t {
        content_by_lua_block {
            ngx.say(kit.http(ngx.var.server_port, "/room"))
            ngx.say(kit.http(ngx.var.server_port, "/more"))
        }
    }
--- request
GET /t
--- response_body
2 6
4
--- error_log
queue full



=== TEST 6: replies that are no success are counted, and errors are logged
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local q = queue.new("127.0.0.1", kit.port)
            kit.connect():flush_all()
            q:replace("absent", 1)
            q:delete("absent")
            q:touch("absent", 1)
            q:incr("absent", 1)
            q:set("text", "x")
            q:incr("text", 1)
            q:set("large", ("x"):rep(2000000))
            q:set("after", 1)
            kit.show("drained", drained(q))
            kit.show("after", kit.connect():get("after"))
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
drained: true
after: "1", "0"
counts: {done=2, dropped=0, full=0, lost=0, refused=2, taken=8, unmet=4}
--- error_log
lua memcached queue: refused:



=== TEST 7: order, over many turns of the event loop and by many requests
--- http_config eval: $::HttpConfig
--- config
    location = /one {
        content_by_lua_block {
            kit.shared.last = kit.shared.last + 1
            queue.new("127.0.0.1", kit.port):append("order", kit.shared.last .. ",")
            ngx.print("ok")
        }
        log_by_lua_block {
            kit.shared.last = kit.shared.last + 1
            queue.new("127.0.0.1", kit.port):append("order", kit.shared.last .. ",")
        }
    }
    location = /t {
        content_by_lua_block {
            local q = queue.new("127.0.0.1", kit.port, { max_operations = 20000, timeout = 60000 })
            kit.shared.last = 0
            q:set("order", "")
            local want = {}
            for i = 1, 10 do
                local threads = {}
                for t = 1, 10 do
                    threads[t] = ngx.thread.spawn(kit.http, ngx.var.server_port, "/one")
                end
                for _, thread in ipairs(threads) do ngx.thread.wait(thread) end
            end
            kit.eventually(function() return kit.shared.last == 200 end)
            for i = 1, 200 do want[i] = i .. "," end
            kit.show("drained", drained(q))
            kit.show("in order", kit.connect():get("order") == table.concat(want))
            for i = 1, 10000 do assert(q:set("last", i)) end
            kit.show("drained", drained(q))
            kit.show("last", kit.connect():get("last"))
        }
    }
--- request
GET /t
--- response_body
drained: true
in order: true
drained: true
last: "10000", "0"
--- no_error_log
[error]



=== TEST 8: large values out of a body filter, whose request is gone when they are sent
--- http_config eval: $::HttpConfig
--- config
    location = /big {
        content_by_lua_block { ngx.print(("0123456789abcdef"):rep(16384)) }
        body_filter_by_lua_block {
            if ngx.arg[1] ~= "" then
                queue.new("127.0.0.1", kit.port):append("body", ngx.arg[1])
            end
        }
    }
    location = /t {
        content_by_lua_block {
            local q = queue.new("127.0.0.1", kit.port)
            q:set("body", "")
            kit.show("answer", #kit.http(ngx.var.server_port, "/big"))
            kit.show("drained", drained(q))
            collectgarbage()
            kit.show("stored", kit.connect():get("body") == ("0123456789abcdef"):rep(16384))
        }
    }
--- request
GET /t
--- response_body
answer: 262144
drained: true
stored: true
--- no_error_log
[error]
