use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Meta commands against memcached 1.6.18 or newer. What depends on the version is in
# meta_versions.t, what a server should not say in meta_replies.t.

our $HttpConfig = TestEnv::head( skip => 'the reference has no such methods' );

run_tests();

__DATA__

=== TEST 1: meta_get
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("miss", m:meta_get("k"))
            m:set("k", "value", 100, 7)
            kit.show("value", m:meta_get("k"))
            kit.show("empty options", m:meta_get("k", {}))
            kit.show("nothing", m:meta_get("k", { value = false }))
            local item = m:meta_get("k", { flags = true, cas = true, ttl = true, size = true, hit = true,
                last_access = true })
            local _, _, cas = m:gets("k")
            kit.show("cas", item.cas == cas, type(cas))
            item.cas = nil
            kit.show("all", item)
            kit.show("touch", m:meta_get("k", { touch = 50, ttl = true, value = false }))
            kit.show("touch text", m:meta_get("k", { touch = "60", ttl = true, value = false }))
            kit.show("touch and recache",
                m:meta_get("k", { touch = 300, recache = 200, ttl = true, value = false }))
            m:set("k", "value")
            kit.show("not counted", m:meta_get("k", { no_bump = true }), m:meta_get("k", { hit = true }))
            kit.show("if changed, other", m:meta_get("k", { if_changed = "1", cas = false }))
            m:set("k", "")
            kit.show("no expiry", m:meta_get("k", { ttl = true }))
            kit.show("touch, gone", m:meta_get("k", { touch = -1 }), m:meta_get("k"))
            local later = ngx.time() + 5000
            m:set("k", "x")
            item = m:meta_get("k", { touch = later, ttl = true })
            kit.show("Unix time", item.ttl > 4990 and item.ttl <= 5001)
            kit.show("any key", m:meta_set("a b\r\n", "x"), m:meta_get("a b\r\n"), m:get("a b\r\n"))
            kit.show("number key", m:meta_set(17, "x"), m:meta_get("17"))
            kit.show("number value", m:meta_set("n", 1.5), m:get("n"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
miss: nil, nil
value: {value="value"}, nil
empty options: {value="value"}, nil
nothing: {}, nil
cas: true, "string"
all: {flags="7", hit=true, last_access=0, size=5, ttl=100, value="value"}
touch: {ttl=50}, nil
touch text: {ttl=60}, nil
touch and recache: {ttl=300, won=true}, nil
not counted: {value="value"}, {hit=false, value="value"}, nil
if changed, other: {value="value"}, nil
no expiry: {ttl=-1, value=""}, nil
touch, gone: {value=""}, nil, nil
Unix time: true
any key: {}, {value="x"}, "x", "0"
number key: {}, {value="x"}, nil
number value: {}, "1.5", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 2: meta_set
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local function now(label, ...)
                local item = m:meta_get("k", { flags = true, ttl = true })
                kit.show(label, kit.trim(...))
                ngx.say("    ", kit.fmt(item))
            end
            now("set", m:meta_set("k", "v"))
            now("with all", m:meta_set("k", "w", { ttl = 100, flags = 7 }))
            now("flags", m:meta_set("k", "w", { flags = "4294967295" }))
            now("add", m:meta_set("k", "x", { mode = "add" }))
            now("replace", m:meta_set("k", "y", { mode = "replace", ttl = 200 }))
            now("append", m:meta_set("k", "+", { mode = "append" }))
            now("prepend", m:meta_set("k", "-", { mode = "prepend" }))
            m:delete("k")
            now("append, none", m:meta_set("k", "+", { mode = "append" }))
            now("replace, none", m:meta_set("k", "+", { mode = "replace" }))
            now("cas, none", m:meta_set("k", "+", { cas = 1 }))
            now("add, none", m:meta_set("k", "", { mode = "add" }))
            local stored = m:meta_set("k", "1", { return_cas = true })
            local _, _, cas = m:gets("k")
            kit.show("return_cas", stored.cas == cas, type(stored.cas))
            now("cas", m:meta_set("k", "2", { cas = cas }))
            now("cas, changed", m:meta_set("k", "3", { cas = cas }))
            kit.show("cas, changed", m:meta_set("k", "3", { cas = cas, return_cas = true }))
            now("expired", m:meta_set("k", "4", { ttl = -1 }))
            local large = ("0123456789"):rep(50000)
            kit.show("large", m:meta_set("l", large, { ttl = 100 }))
            local item = m:meta_get("l", { size = true })
            kit.show("large", item.value == large, item.size)
            kit.show("too large", m:meta_set("l", large:rep(3)))
            kit.show("gone", m:meta_get("l"))
            kit.show("what looks like a command", m:meta_set("k", "\r\nflush_all\r\n"), m:meta_get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set: {}
    {flags="0", ttl=-1, value="v"}
with all: {}
    {flags="7", ttl=100, value="w"}
flags: {}
    {flags="4294967295", ttl=-1, value="w"}
add: nil, "NOT_STORED"
    {flags="4294967295", ttl=-1, value="w"}
replace: {}
    {flags="0", ttl=200, value="y"}
append: {}
    {flags="0", ttl=200, value="y+"}
prepend: {}
    {flags="0", ttl=200, value="-y+"}
append, none: nil, "NOT_STORED"
    nil
replace, none: nil, "NOT_STORED"
    nil
cas, none: nil, "NOT_FOUND"
    nil
add, none: {}
    {flags="0", ttl=-1, value=""}
return_cas: true, "string"
cas: {}
    {flags="0", ttl=-1, value="2"}
cas, changed: nil, "EXISTS"
    {flags="0", ttl=-1, value="2"}
cas, changed: nil, "EXISTS"
expired: {}
    nil
large: {}, nil
large: true, 500000
too large: nil, "SERVER_ERROR object too large for cache"
gone: nil, nil
what looks like a command: {}, {value="\r\nflush_all\r\n"}, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 3: meta_delete
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("none", m:meta_delete("k"))
            m:set("k", "v")
            kit.show("there", m:meta_delete("k"))
            kit.show("gone", m:get("k"))
            m:set("k", "v")
            local _, _, cas = m:gets("k")
            kit.show("wrong cas", m:meta_delete("k", { cas = 1 }))
            kit.show("right cas", m:meta_delete("k", { cas = cas }))
            m:set("k", "v")
            kit.show("stale", m:meta_delete("k", { stale = true, ttl = 30 }))
            kit.show("one wins", m:meta_get("k", { ttl = true }))
            kit.show("others know", m:meta_get("k"))
            m:set("k", "new")
            kit.show("new", m:meta_get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
none: nil, "NOT_FOUND"
there: 1, nil
gone: nil, nil, nil
wrong cas: nil, "EXISTS"
right cas: 1, nil
stale: 1, nil
one wins: {stale=true, ttl=30, value="v", won=true}, nil
others know: {lost=true, stale=true, value="v"}, nil
new: {value="new"}, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 4: meta_arith
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("none", m:meta_arith("n"))
            kit.show("made", kit.trim(m:meta_arith("n", { initial = 5, vivify = 100, delta = 3 })))
            kit.show("counted", kit.trim(m:meta_arith("n", { initial = 5, vivify = 100, delta = 3 })))
            kit.show("by 1", kit.trim(m:meta_arith("n")))
            kit.show("down", kit.trim(m:meta_arith("n", { decr = true, delta = 2 })))
            kit.show("not below 0", kit.trim(m:meta_arith("n", { decr = true, delta = "100" })))
            kit.show("number of values", select("#", m:meta_arith("n")))
            kit.show("ttl", m:meta_arith("n", { return_ttl = true }))
            kit.show("new ttl", m:meta_arith("n", { return_ttl = true, ttl = 50 }))
            kit.show("from 0", kit.trim(m:meta_arith("z", { vivify = 0 })), m:meta_arith("z", { return_ttl = true }))
            kit.show("wraps", kit.trim(m:meta_arith("w", { initial = "18446744073709551615", vivify = 9 })),
                kit.trim(m:meta_arith("w")))
            local _, _, cas = m:gets("w")
            kit.show("wrong cas", m:meta_arith("w", { cas = 1 }))
            kit.show("right cas", kit.trim(m:meta_arith("w", { cas = cas })))
            m:set("t", "text")
            kit.show("a text", m:meta_arith("t"))
            m:set("n", 10)
            kit.show("shorter", kit.trim(m:meta_arith("n", { decr = true })), m:get("n"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
none: nil, "NOT_FOUND", nil
made: "5"
counted: "8"
by 1: "9"
down: "7"
not below 0: "0"
number of values: 3
ttl: "2", nil, 100
new ttl: "3", nil, 50
from 0: "0", "1", nil, -1
wraps: "18446744073709551615", "0"
wrong cas: nil, "EXISTS", nil
right cas: "1"
a text: nil, "CLIENT_ERROR cannot increment or decrement non-numeric value", nil
shorter: "9", "9 ", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 5: one of several clients makes a new value
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local all = { kit.fresh(), kit.connect(), kit.connect() }
            local function round(label, options)
                local seen = {}
                for i, m in ipairs(all) do seen[i] = kit.fmt(m:meta_get("k", options)) end
                ngx.say(label, ": ", table.concat(seen, " "))
            end
            round("none", { vivify = 30 })
            kit.show("made", all[1]:meta_set("k", "v", { ttl = 100 }))
            round("there", { vivify = 30 })
            round("early", { recache = 200 })
            kit.show("made", all[1]:meta_set("k", "w", { ttl = 100 }))
            round("not yet", { recache = 50 })
            kit.show("out of date", all[2]:meta_delete("k", { stale = true }))
            round("stale", {})
            kit.show("made", all[3]:meta_set("k", "x", { ttl = 100 }))
            round("new", { vivify = 30, recache = 50 })
        }
    }
--- request
GET /t
--- response_body
none: {value="", won=true} {lost=true, value=""} {lost=true, value=""}
made: {}, nil
there: {value="v"} {value="v"} {value="v"}
early: {value="v", won=true} {lost=true, value="v"} {lost=true, value="v"}
made: {}, nil
not yet: {value="w"} {value="w"} {value="w"}
out of date: 1, nil
stale: {stale=true, value="w", won=true} {lost=true, stale=true, value="w"} {lost=true, stale=true, value="w"}
made: {}, nil
new: {value="x"} {value="x"} {value="x"}
--- no_error_log
[error]



=== TEST 6: equal gets of one turn do not share what only one can win
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.fresh()
            local function at_once(call)
                local threads, count = {}, {}
                for i = 1, 8 do
                    threads[i] = ngx.thread.spawn(function()
                        local m = kit.connect()
                        m:get("warm")
                        return call(m)
                    end)
                end
                for i = 1, 8 do
                    local _, what = ngx.thread.wait(threads[i])
                    count[what] = (count[what] or 0) + 1
                end
                return count
            end
            kit.show("vivify", at_once(function(m)
                local item = m:meta_get("k", { vivify = 30 })
                return item.won and "won" or item.lost and "lost" or "neither"
            end))
            local m = kit.connect()
            m:set("k", "v")
            m:meta_delete("k", { stale = true })
            kit.show("plain", at_once(function(m)
                local item = m:meta_get("k")
                return item.won and "won" or item.lost and "lost" or "neither"
            end))
            kit.show("counted", at_once(function(m)
                return tostring(m:meta_arith("n", { vivify = 30, initial = 1 }))
            end))
        }
    }
--- request
GET /t
--- response_body
vivify: {lost=7, won=1}
plain: {lost=7, won=1}
counted: {1=1, 2=1, 3=1, 4=1, 5=1, 6=1, 7=1, 8=1}
--- no_error_log
[error]



=== TEST 7: options that are not understood
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            for _, options in ipairs{
                { valeu = true }, { "value" }, { [print] = true }, { value = 1 }, { value = "yes" },
                { touch = "soon" }, { touch = true }, { touch = 1.5 }, { touch = {} }, { touch = print },
                { touch = 2592001 }, { touch = ngx.time() - 1 }, { vivify = -1 }, { recache = 2 ^ 31 },
                { if_changed = "" }, { if_changed = -1 }, { if_changed = 1, value = false }, { q = true },
                { touch = "1\r\nflush_all" }, { ["v\r\nflush_all\r\n"] = true }, 17, "value", true, print,
            } do
                kit.show(kit.fmt(options):gsub("%d%d%d%d%d%d%d%d%d%d", "TIME") .. "",
                    (select(2, m:meta_get("k", options)):gsub("%d%d%d%d%d%d%d%d%d%d", "TIME")))
            end
            kit.show("set", m:meta_set("k", "x", { mode = "cas" }))
            kit.show("set", m:meta_set("k", "x", { vivify = 5 }))
            kit.show("set", m:meta_set("k", "x", { mode = "append", ttl = 5 }))
            kit.show("set", m:meta_set("k", "x", { mode = "append", flags = 5 }))
            kit.show("set", m:meta_set("k", "x", { flags = 2 ^ 32 }))
            kit.show("delete", m:meta_delete("k", { ttl = 5 }))
            kit.show("delete", m:meta_delete("k", { new_cas = 5 }))
            kit.show("arith", m:meta_arith("n", { initial = 5 }))
            kit.show("arith", m:meta_arith("n", { delta = -5 }))
            for _, value in ipairs{ true, print } do
                kit.show("value " .. type(value), kit.raises(m.meta_set, m, "k", value))
            end
            kit.show("value table", kit.raises(m.meta_set, m, "k", {}))
            kit.show("value nil", kit.raises(m.meta_set, m, "k"))
            kit.show("untouched", m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
{valeu=true}: "bad options: there is no option \"valeu\""
{"value"}: "bad options: there is no option 1"
{[function]=true}: "bad options: there is no option a function"
{value=1}: "bad value option: expecting a boolean, got 1"
{value="yes"}: "bad value option: expecting a boolean, got \"yes\""
{touch="soon"}: "bad touch option: expecting a number of seconds, got \"soon\""
{touch=true}: "bad touch option: expecting a number of seconds, got true"
{touch=1.5}: "bad touch option: expecting a number of seconds, got 1.5"
{touch={}}: "bad touch option: expecting a number of seconds, got a table"
{touch=function}: "bad touch option: expecting a number of seconds, got a function"
{touch=2592001}: "bad touch option: 2592001 is neither up to 2592000 seconds nor a Unix time to come"
{touch=TIME}: "bad touch option: TIME is neither up to 2592000 seconds nor a Unix time to come"
{vivify=-1}: "bad vivify option: expecting a number of seconds, at least 0, got -1"
{recache=TIME}: "bad recache option: expecting a number of seconds, at least 0, got TIME"
{if_changed=""}: "bad if_changed option: expecting an integer from 0 to 2^64-1, got \"\""
{if_changed=-1}: "bad if_changed option: expecting an integer from 0 to 2^64-1, got -1"
{if_changed=1, value=false}: "bad if_changed option: no value is wanted"
{q=true}: "bad options: there is no option \"q\""
{touch="1\r\nflush_all"}: "bad touch option: expecting a number of seconds, got \"1\r\nflush_all\""
{["v\r\nflush_all\r\n"]=true}: "bad options: there is no option \"v\r\nflush_all\r\n\""
17: "bad options: expecting a table, got 17"
"value": "bad options: expecting a table, got \"value\""
true: "bad options: expecting a table, got true"
function: "bad options: expecting a table, got a function"
set: nil, "bad mode option: expecting set, add, replace, append or prepend, got \"cas\""
set: nil, "bad vivify option: only append and prepend need it"
set: nil, "bad ttl option: append and prepend keep the expiry"
set: nil, "bad flags option: append and prepend keep the flags"
set: nil, "bad flags option: expecting an integer from 0 to 2^32-1, got 4294967296"
delete: nil, "bad ttl option: only with stale is there an item left"
delete: nil, "bad new_cas option: only with stale or drop_value is there an item left"
arith: nil, "bad initial option: only with vivify is there a number made", nil
arith: nil, "bad delta option: expecting an integer from 0 to 2^64-1, got -5", nil
value boolean: "raised a string"
value function: "raised a string"
value table: "raised a string"
value nil: "raised a string"
untouched: "v", "0"
in step: "yes"
--- error_log
lua memcached command refused: mg: bad options: there is no option "valeu"



=== TEST 8: keys
--- object: a client is never closed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            local m = kit.fresh()
            for _, name in ipairs{ "meta_get", "meta_set", "meta_delete", "meta_arith" } do
                local last = name == "meta_set" and "v" or nil
                kit.show(name, kit.trim(m[name](m, "", last)))
                kit.show(name, kit.trim(m[name](m, ("k"):rep(251), last)))
                kit.show(name, kit.trim(m[name](m, (" "):rep(84), last)))
            end
            local function same(key) return key end
            local raw = kit.connect(nil, nil, { key_transform = { same, same } })
            for _, name in ipairs{ "meta_get", "meta_set", "meta_delete", "meta_arith" } do
                local last = name == "meta_set" and "v" or nil
                kit.show(name, kit.trim(raw[name](raw, "a v\r\nflush_all", last)))
            end
            kit.show("own transform", raw:meta_set("a%20b", "x"), m:meta_get("a b"))
            kit.show("transform", kit.raise_text(raw.meta_get, raw, {}))
            local module = require "resty.memcached"
            kit.show("module", module.meta_get(module, "k"))
            kit.show("module", module.meta_arith(module, "k"))
            m:close()
            kit.show("closed", m:meta_get("k"))
            kit.show("closed", kit.trim(m:meta_arith("k")))
            kit.show("closed, bad option", m:meta_get("k", { x = 1 }))
            kit.show("new", kit.new():meta_set("k", "v"))
        }
    }
--- request
GET /t
--- response_body
meta_get: nil, "ERROR"
meta_get: nil, "CLIENT_ERROR bad command line format"
meta_get: nil, "CLIENT_ERROR bad command line format"
meta_set: nil, "ERROR"
meta_set: nil, "CLIENT_ERROR bad command line format"
meta_set: nil, "CLIENT_ERROR bad command line format"
meta_delete: nil, "ERROR"
meta_delete: nil, "CLIENT_ERROR bad command line format"
meta_delete: nil, "CLIENT_ERROR bad command line format"
meta_arith: nil, "ERROR"
meta_arith: nil, "CLIENT_ERROR bad command line format"
meta_arith: nil, "CLIENT_ERROR bad command line format"
meta_get: nil, "bad key: contains whitespace or control characters"
meta_set: nil, "bad key: contains whitespace or control characters"
meta_delete: nil, "bad key: contains whitespace or control characters"
meta_arith: nil, "bad key: contains whitespace or control characters"
own transform: {}, {value="x"}, nil
transform: "bad key argument (string or number expected, got table)"
module: nil, "not initialized"
module: nil, "not initialized"
closed: nil, "closed"
closed: nil, "closed"
closed, bad option: nil, "closed"
new: nil, "closed"
--- no_error_log
[error]



=== TEST 9: in a pipeline
--- object: a client is never closed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            local m = kit.fresh()
            m:init_pipeline()
            kit.show("added", m:meta_set("k", "v", { flags = 3 }))
            kit.show("added", m:meta_get("k", { flags = true }))
            m:meta_get("none")
            m:get("k")
            m:meta_arith("n", { vivify = 50, initial = 5, return_ttl = true })
            m:meta_arith("n")
            m:meta_arith("none")
            kit.show("refused", m:meta_get("k", { what = true }))
            m:meta_delete("k")
            m:meta_delete("k")
            m:set("last", 1)
            for i, result in ipairs(m:commit_pipeline()) do kit.show(i, result) end
            kit.show("in step", kit.in_step(m))
            -- on a connection that knows nothing of its server
            local fresh = kit.connect(nil, { pool = "fresh" .. math.random() })
            fresh:init_pipeline()
            fresh:meta_get("last")
            fresh:get("last")
            kit.show("at first", fresh:commit_pipeline())
            kit.show("in step", kit.in_step(fresh))
            fresh:init_pipeline()
            fresh:meta_get("last", { what = true })
            kit.show("all refused", fresh:commit_pipeline())
            fresh:close()
            fresh:init_pipeline()
            fresh:meta_get("last")
            kit.show("closed", fresh:commit_pipeline())
        }
    }
--- request
GET /t
--- response_body
added: 1, nil
added: 1, nil
refused: 1, nil
1: {{}}
2: {{flags="3", value="v"}}
3: {}
4: {"v", "3"}
5: {"5", [3]=50}
6: {"6"}
7: {nil, "NOT_FOUND"}
8: {nil, "bad options: there is no option \"what\""}
9: {1}
10: {nil, "NOT_FOUND"}
11: {1}
in step: "yes"
at first: {{{value="1"}}, {"1", "0"}}, nil
in step: "yes"
all refused: {{nil, "bad options: there is no option \"what\""}}, nil
closed: nil, "closed"
--- no_error_log
[error]



=== TEST 10: where nobody can wait
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            local text
            pcall(table.sort, { 1, 2 }, function()
                text = kit.raise_text(m.meta_get, m, "k")
                return false
            end)
            kit.show("in a sort", text)
            kit.show("later", m:meta_get("k"))
            pcall(table.sort, { 1, 2 }, function()
                text = kit.raise_text(m.meta_get, m, "k")
                return false
            end)
            kit.show("in a sort", text)
            kit.show("later", m:meta_get("k"))
        }
    }
--- request
GET /t
--- response_body
in a sort: "attempt to yield across C-call boundary"
later: {value="v"}, nil
in a sort: "attempt to yield across C-call boundary"
later: {value="v"}, nil
--- no_error_log
[error]



=== TEST 11: rate limiting, as docs/meta.md has it
--- http_config eval: $::HttpConfig
--- config
    location = /api {
        access_by_lua_block {
            local LIMIT, WINDOW = 3, 60

            local memc = require("resty.memcached"):new()
            memc:set_timeouts(1000, 1000, 1000)
            local ok, err = memc:connect("127.0.0.1", kit.port)
            if not ok then
                ngx.log(ngx.ERR, "no rate limiting: ", err)
                return
            end
            local count, err, ttl = memc:meta_arith("rate:" .. ngx.var.remote_addr,
                { vivify = WINDOW, initial = 1, return_ttl = true })
            if not count then
                ngx.log(ngx.ERR, "no rate limiting: ", err)
                return
            end
            memc:set_keepalive(10000, 50)

            local left = LIMIT - tonumber(count)
            ngx.header["X-RateLimit-Remaining"] = math.max(left, 0)
            if left < 0 then
                ngx.header["Retry-After"] = math.max(ttl, 1)
                return ngx.exit(429)
            end
        }
        content_by_lua_block { ngx.say("here you are") }
    }
    location = /t {
        content_by_lua_block {
            kit.fresh()
            for i = 1, 5 do
                local sock = ngx.socket.tcp()
                assert(sock:connect("127.0.0.1", ngx.var.server_port))
                assert(sock:send("GET /api HTTP/1.0\r\nHost: localhost\r\n\r\n"))
                local answer = assert(sock:receive("*a"))
                sock:close()
                local wait = tonumber(answer:match("Retry%-After: (%d+)"))
                kit.show(i, answer:match("HTTP/1.%d (%d+)"), answer:match("Remaining: (%d+)"),
                    wait and wait > 50 and wait <= 60)
            end
        }
    }
--- request
GET /t
--- response_body
1: "200", "2", nil
2: "200", "1", nil
3: "200", "0", nil
4: "429", "0", true
5: "429", "0", true
--- no_error_log
[error]
