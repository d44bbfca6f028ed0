use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: incr and decr
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("incr missing", m:incr("n", 1))
            kit.show("decr missing", m:decr("n", 1))
            m:set("n", 10)
            kit.show("incr", m:incr("n", 5))
            kit.show("decr", m:decr("n", 3))
            kit.show("string delta", m:incr("n", "8"))
            kit.show("zero", m:incr("n", 0), m:decr("n", 0))
            kit.show("below zero", m:decr("n", 100))
            kit.show("get", m:get("n"))
            kit.show("2^53", m:set("n", "9007199254740993"), m:incr("n", 1))
            kit.show("largest", m:set("n", "18446744073709551614"), m:incr("n", 1))
            kit.show("wraps", m:incr("n", 1))
            kit.show("delta 2^63", m:incr("n", "9223372036854775808"))
            m:set("n", "abc")
            kit.show("not a number", m:incr("n", 1))
            kit.show("not a number", m:decr("n", 1))
            m:set("n", "99")
            kit.show("grows", m:incr("n", 1), m:get("n"))
            kit.show("shrinks", m:decr("n", 1), m:get("n"))
            for _, bad in ipairs{ true, print } do
                kit.show("delta " .. type(bad), kit.raises(m.incr, m, "n", bad),
                         kit.raises(m.decr, m, "n", bad))
            end
            kit.show("table delta", kit.raises(m.incr, m, "n", { print }))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
incr missing: nil, "NOT_FOUND"
decr missing: nil, "NOT_FOUND"
incr: "15"
decr: "12"
string delta: "20"
zero: "20", "20"
below zero: "0"
get: "0 ", "0"
2^53: 1, "9007199254740994"
largest: 1, "18446744073709551615"
wraps: "0"
delta 2^63: "9223372036854775808"
not a number: nil, "CLIENT_ERROR cannot increment or decrement non-numeric value"
not a number: nil, "CLIENT_ERROR cannot increment or decrement non-numeric value"
grows: "100", "100", "0"
shrinks: "99", "99 ", "0"
delta boolean: "raised a string", "raised a string"
delta function: "raised a string", "raised a string"
table delta: "raised a string"
in step: "yes"
--- no_error_log
[error]



=== TEST 2: delete and touch
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("delete missing", m:delete("k"))
            m:set("k", "v")
            kit.show("delete", m:delete("k"))
            kit.show("get", m:get("k"))
            kit.show("delete again", m:delete("k"))
            kit.show("extra arguments", m:set("k", "v"), m:delete("k", 5))
            kit.show("touch missing", m:touch("k", 10))
            m:set("k", "v")
            kit.show("touch", m:touch("k", 10), m:get("k"))
            kit.show("touch string", m:touch("k", "10"))
            kit.show("touch 0", m:touch("k", 0))
            kit.show("touch -1", m:touch("k", -1))
            kit.show("gone", m:get("k"))
            for _, bad in ipairs{ true, print } do
                kit.show("exptime " .. type(bad), kit.raises(m.touch, m, "k", bad))
            end
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
delete missing: nil, "NOT_FOUND"
delete: 1
get: nil, nil, nil
delete again: nil, "NOT_FOUND"
extra arguments: 1, 1
touch missing: nil, "NOT_FOUND"
touch: 1, "v", "0"
touch string: 1
touch 0: 1
touch -1: 1
gone: nil, nil, nil
exptime boolean: "raised a string"
exptime function: "raised a string"
in step: "yes"
--- no_error_log
[error]



=== TEST 3: flush_all, verbosity, version, quit
--- object: a client has no quit
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            kit.show("flush later", m:flush_all(100), m:get("k"))
            kit.show("flush string", m:flush_all("100"))
            kit.show("flush", m:flush_all(), m:get("k"))
            m:set("k", "v")
            kit.show("flush nil", m:flush_all(nil), m:get("k"))
            m:set("k", "v")
            kit.show("flush false", m:flush_all(false), m:get("k"))
            kit.show("flush true", kit.raises(m.flush_all, m, true))
            kit.show("verbosity", m:verbosity(0))
            kit.show("verbosity string", m:verbosity("0"))
            for _, bad in ipairs{ true, print } do
                kit.show("verbosity " .. type(bad), kit.raises(m.verbosity, m, bad))
            end
            local ver, err = m:version()
            kit.show("version", type(ver), ver:match("^%d+%.%d+") ~= nil, err)
            kit.show("count", select("#", m:version()))
            kit.show("in step", kit.in_step(m))
            kit.show("quit", m:quit())
            kit.show("get after quit", m:get("k"))
            kit.show("close after quit", kit.trim(m:close()))
            kit.show("connect after quit", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
flush later: 1, "v", "0"
flush string: 1
flush: 1, nil, nil, nil
flush nil: 1, nil, nil, nil
flush false: 1, nil, nil, nil
flush true: "raised a string"
verbosity: 1
verbosity string: 1
verbosity boolean: "raised a string"
verbosity function: "raised a string"
version: "string", true, nil
count: 1
in step: "yes"
quit: 1
get after quit: nil, nil, "closed"
close after quit: 1
connect after quit: 1
in step: "yes"
--- no_error_log
[error]



=== TEST 4: stats
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local lines, err = m:stats()
            local bad = 0
            for _, line in ipairs(lines) do
                if not line:match("^STAT %S+ .+$") then bad = bad + 1 end
            end
            kit.show("stats", #lines > 20, bad, err, select("#", m:stats()))
            m:set("k", "v")
            local items = m:stats("items")
            kit.show("items", #items > 0, items[1]:match("^STAT items:%d+:number %d+$") ~= nil)
            lines = m:stats("settings")
            kit.show("settings", #lines > 10)
            kit.show("slabs", #m:stats("slabs") > 0)
            kit.show("sizes", type(m:stats("sizes")))
            kit.show("nil", #m:stats(nil) > 20)
            kit.show("false", #m:stats(false) > 20)
            for _, arg in ipairs{ true, print } do
                kit.show("args " .. type(arg), kit.raises(m.stats, m, arg))
            end
            kit.show("in step", kit.in_step(m))
            -- behind an error a proxy might go on, so this may be the last command
            kit.show("unknown", m:stats("nonesuch"))
        }
    }
--- request
GET /t
--- response_body
stats: true, 0, nil, 2
items: true, true
settings: true
slabs: true
sizes: "table"
nil: true
false: true
args boolean: "raised a string"
args function: "raised a string"
in step: "yes"
unknown: nil, "ERROR"
--- no_error_log
[error]
