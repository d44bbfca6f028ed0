use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Objects with a codec: what it gets, and what becomes of what it returns.

our $HttpConfig = TestEnv::head( skip => 'the reference has no codecs', init => <<'LUA' );
    metakit = require "metakit"
    -- Marks what it has seen: "type:text", with the type's length as flags.
    marking = {
        encode = function(value)
            if value == "no" then return nil, "not this one" end
            if value == "nothing" then return nil end
            if value == "plain" then return "plain" end
            local kind = type(value)
            return kind .. ":" .. tostring(value), #kind
        end,
        decode = function(text, flags)
            local kind, rest = text:match("^(%a+):(.*)$")
            if text == "void" then return nil end
            if not kind then return nil, "no type in " .. text .. " with flags " .. flags end
            if kind == "number" then return tonumber(rest) end
            if kind == "boolean" then return rest == "true" end
            return rest
        end,
    }
LUA

run_tests();

__DATA__

=== TEST 1: values of all types through all methods
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            local m = kit.connect(nil, nil, { codec = marking })
            kit.show("set", m:set("n", 42), m:get("n"))
            kit.show("stored", plain:get("n"))
            kit.show("boolean", m:set("b", false), m:get("b"))
            kit.show("string", m:set("s", "x"), m:get("s"))
            kit.show("given flags", m:set("p", "plain", 0, 9), plain:get("p"))
            kit.show("own flags", m:set("p", 1, 0, 9), plain:get("p"))
            kit.show("refused", m:set("n", "no"), m:add("n", "no"), m:replace("n", "no"), m:cas("n", "no", 1))
            kit.show("nothing", m:set("n", "nothing"))
            kit.show("add", m:add("a", 1), m:add("a", 2))
            kit.show("replace", m:replace("a", 3), m:get("a"))
            local value, flags, cas, err = m:gets("a")
            kit.show("gets", value, flags, type(cas), err)
            kit.show("cas", m:cas("a", 4, cas), m:cas("a", 5, cas), m:get("a"))
            kit.show("gat", m:gat("a", 60))
            value, flags, cas, err = m:gats("a", 60)
            kit.show("gats", value, flags, type(cas), err)
            kit.show("miss", m:get("none"))
            kit.show("miss", m:gets("none"))
            kit.show("append", m:append("s", "+"), m:prepend("s", "string:-"), m:get("s"))
            plain:set("count", 5)
            kit.show("incr", m:incr("count", 2), m:decr("count", 1))
            plain:set("foreign", "abc", 0, 3)
            kit.show("foreign", m:get("foreign"))
            kit.show("foreign", m:gets("foreign"))
            kit.show("foreign", m:gat("foreign", 60))
            kit.show("foreign", m:gats("foreign", 60))
            plain:set("v", "void")
            kit.show("void", m:get("v"))
            kit.show("void", m:gets("v"))
            kit.show("list", m:get{ "n", "a", "foreign", "v", "none" })
            local found = m:gets{ "n" }
            kit.show("list", found.n[1], found.n[2], type(found.n[3]))
            kit.show("list", m:gat({ "n", "foreign" }, 60))
            kit.show("list", m:gats({ "none" }, 60), m:get{})
            kit.show("in step", kit.in_step(plain))
        }
    }
--- request
GET /t
--- response_body
set: 1, 42, "6"
stored: "number:42", "6"
boolean: 1, false, "7"
string: 1, "x", "6"
given flags: 1, "plain", "9"
own flags: 1, "number:1", "6"
refused: nil, nil, nil, nil, "not this one"
nothing: nil, "the value cannot be encoded"
add: 1, nil, "NOT_STORED"
replace: 1, 3, "6"
gets: 3, "6", "string", nil
cas: 1, nil, 4, "6"
gat: 4, "6"
gats: 4, "6", "string", nil
miss: nil, nil, nil
miss: nil, nil, nil, nil
append: 1, 1, "-string:x+", "6"
incr: "7", "6"
foreign: nil, nil, "no type in abc with flags 3"
foreign: nil, nil, nil, "no type in abc with flags 3"
foreign: nil, nil, "no type in abc with flags 3"
foreign: nil, nil, nil, "no type in abc with flags 3"
void: nil, nil, nil
void: nil, nil, nil, nil
list: {a={4, "6"}, foreign={nil, "3", err="no type in abc with flags 3"}, n={42, "6"}}, nil
list: 42, "6", "string"
list: {foreign={nil, "3", err="no type in abc with flags 3"}, n={42, "6"}}, nil
list: {}, {}, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 2: meta commands
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            local m = kit.connect(nil, nil, { codec = marking })
            kit.show("set", m:meta_set("n", 42, { ttl = 100 }), m:meta_get("n", { ttl = true }))
            kit.show("stored", plain:get("n"))
            kit.show("flags", m:meta_get("n", { flags = true }), m:meta_get("n", { flags = false }))
            kit.show("no value", m:meta_get("n", { value = false, flags = true }))
            kit.show("refused", m:meta_set("n", "no"))
            kit.show("append", m:meta_set("n", "1", { mode = "append" }), m:meta_get("n"))
            kit.show("add", m:meta_set("n", 1, { mode = "add" }))
            kit.show("miss", m:meta_get("none"))
            kit.show("bad options", m:meta_get("n", 7))
            kit.show("bad options", m:meta_get("n", { what = true }))
            kit.show("bad options", m:meta_get("n", { flags = 1 }))
            kit.show("bad options", m:meta_set("n", "v", 7))
            local options = { ttl = 50 }
            m:meta_set("n", 1, options)
            m:meta_get("n", options)
            kit.show("options stay as they are", options)
            plain:set("foreign", "abc", 0, 3)
            kit.show("foreign", m:meta_get("foreign", { ttl = true }))
            kit.show("stub", m:meta_get("new", { vivify = 30 }))
            plain:set("void", "void")
            kit.show("decoded to nil", m:meta_get("void", { cas = true }).value, m:meta_get("void"))
            -- the server sends flags without a value
            local srv = metakit.server("VERSION 1.6.45", function(line)
                return line:find(" f") and "HD # f6\r\n" or "HD #\r\n"
            end)
            local new = kit.connect(srv.port, nil, { codec = marking })
            kit.show("not changed", new:meta_get("n", { if_changed = 1 }))
            kit.show("not changed", new:meta_get("n", { if_changed = 1, flags = true }))
            new:init_pipeline()
            new:meta_get("n", { if_changed = 1 })
            kit.show("not changed", new:commit_pipeline())
            srv:close()
            kit.show("arith", kit.trim(m:meta_arith("count", { vivify = 30, initial = 1 })))
        }
    }
--- request
GET /t
--- response_body
set: {}, {ttl=100, value=42}, nil
stored: "number:42", "6"
flags: {flags="6", value=42}, {value=42}, nil
no value: {flags="6"}, nil
refused: nil, "not this one"
append: {}, {value=421}, nil
add: nil, "NOT_STORED"
miss: nil, nil
bad options: nil, "bad options: expecting a table, got 7"
bad options: nil, "bad options: there is no option \"what\""
bad options: nil, "bad flags option: expecting a boolean, got 1"
bad options: nil, "bad options: expecting a table, got 7"
options stay as they are: {ttl=50}
foreign: {err="no type in abc with flags 3", ttl=-1}, nil
stub: {err="no type in  with flags 0", won=true}, nil
decoded to nil: nil, {}, nil
not changed: {}, nil
not changed: {flags="6"}, nil
not changed: {{{}}}, nil
arith: "1"
--- no_error_log
[error]



=== TEST 3: pipelines
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            plain:set("foreign", "abc", 0, 3)
            local m = kit.connect(nil, nil, { codec = marking })
            m:init_pipeline()
            kit.show("added", m:set("n", 42))
            kit.show("not added", m:set("n", "no"))
            kit.show("added", m:get("n"))
            m:get("none")
            m:get("foreign")
            m:gat("n", 60)
            m:gats("n", 60)
            m:gats("none", 60)
            m:gats("foreign", 60)
            m:incr("none", 1)
            m:meta_get("n")
            m:meta_get("n", { flags = true })
            m:meta_get("none")
            m:meta_set("m", true)
            m:get("m")
            m:get(("k"):rep(300))
            local results = m:commit_pipeline()
            for i, result in ipairs(results) do
                if i == 6 then result[3] = type(result[3]) end
                kit.show(i, result)
            end
            m:init_pipeline()
            m:get("n")
            m:cancel_pipeline()
            m:init_pipeline()
            m:incr("none", 1)
            m:get("n")
            kit.show("after one that was cancelled", m:commit_pipeline())
            kit.show("no pipeline", m:commit_pipeline())
            kit.show("twice", m:init_pipeline(), m:init_pipeline())
            m:get("n")
            kit.show("still", m:commit_pipeline())
        }
    }
--- request
GET /t
--- response_body
added: 1
not added: nil, "not this one"
added: 1, nil, nil
1: {1}
2: {42, "6"}
3: {}
4: {[3]="no type in abc with flags 3"}
5: {42, "6"}
6: {42, "6", "string"}
7: {}
8: {[4]="no type in abc with flags 3"}
9: {nil, "NOT_FOUND"}
10: {{value=42}}
11: {{flags="6", value=42}}
12: {}
13: {{}}
14: {true, "7"}
15: {[3]="CLIENT_ERROR bad command line format"}
after one that was cancelled: {{nil, "NOT_FOUND"}, {42, "6"}}, nil
no pipeline: nil, "no pipeline"
twice: nil, "already init pipeline"
still: {{42, "6"}}, nil
--- no_error_log
[error]



=== TEST 4: codecs that yield or raise
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            local yielding = {
                encode = function(value) ngx.sleep(0.001) return value, 1 end,
                decode = function(text) ngx.sleep(0.001) return text .. "!" end,
            }
            local m = kit.connect(nil, nil, { codec = yielding })
            kit.show("yields", m:set("k", "v"), m:get("k"))
            kit.show("yields", m:get{ "k" })
            local raising = {
                encode = function(value) if value == "bad" then error("cannot encode") end return value end,
                decode = function(text) error("cannot decode") end,
            }
            m = kit.connect(nil, nil, { codec = raising })
            kit.show("encode", kit.raise_text(m.set, m, "k", "bad"))
            kit.show("untouched", plain:get("k"))
            kit.show("decode", kit.raise_text(m.get, m, "k"))
            kit.show("decode", kit.raise_text(m.get, m, { "k" }))
            kit.show("goes on", m:set("k", "w"), plain:get("k"))
            kit.show("a table", kit.raises(m.set, m, "k", print))
            kit.show("kept", m:set_keepalive())
        }
    }
--- request
GET /t
--- response_body
yields: 1, "v!", "1"
yields: {k={"v!", "1"}}, nil
encode: "cannot encode"
untouched: "v", "1"
decode: "cannot decode"
decode: "cannot decode"
goes on: 1, "w", "0"
a table: "raised a string"
kept: 1
--- no_error_log
[error]



=== TEST 5: what is no codec
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            for _, codec in ipairs{ "python", "", {}, { encode = print }, { encode = print, decode = true },
                                    true, 7, print } do
                kit.show(kit.fmt(codec), memcached:new{ codec = codec })
            end
            kit.show("false", memcached:new{ codec = false })
            kit.show("callable", memcached:new{ codec = { encode = print, decode = print } } ~= nil)
            local fields = {}
            for name in pairs(memcached:new{ codec = "php" }) do fields[#fields + 1] = name end
            table.sort(fields)
            kit.show("fields", fields)
            fields = {}
            for name in pairs(memcached:new{}) do fields[#fields + 1] = name end
            table.sort(fields)
            kit.show("without", fields)
            local m = memcached:new{ codec = "php" }
            kit.show("not connected", m:get("k"))
            kit.show("not connected", m:set("k", "v"))
            kit.show("not connected", m:get{ "k" })
            local names = {}
            for name in pairs(memcached) do
                if name ~= "server_of" then names[#names + 1] = name end
            end
            table.sort(names)
            ngx.say(table.concat(names, " "))
        }
    }
--- request
GET /t
--- response_body
"python": nil, "bad codec option: expecting \"php\" or a table, got \"python\""
"": nil, "bad codec option: expecting \"php\" or a table, got \"\""
{}: nil, "bad codec option: expecting functions encode and decode"
{encode=function}: nil, "bad codec option: expecting functions encode and decode"
{decode=true, encode=function}: nil, "bad codec option: expecting functions encode and decode"
true: nil, "bad codec option: expecting \"php\" or a table, got a boolean"
7: nil, "bad codec option: expecting \"php\" or a table, got a number"
function: nil, "bad codec option: expecting \"php\" or a table, got a function"
false: nil, "bad codec option: expecting \"php\" or a table, got a boolean"
callable: true
fields: {"codec", "escape_key", "sock", "unescape_key"}
without: {"escape_key", "sock", "unescape_key"}
not connected: nil, nil, "closed"
not connected: nil, "closed"
not connected: nil, "closed"
_VERSION add append cancel_pipeline cas close commit_pipeline connect decr delete flush_all gat gats get get_reused_times gets incr init_pipeline meta_arith meta_delete meta_get meta_set new prepend quit replace set set_keepalive set_timeout set_timeouts sslhandshake stats touch verbosity version
--- no_error_log
[alert]
