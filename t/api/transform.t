use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: identity, prefix, case
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function id(key) return key end
            local m = kit.fresh{ key_transform = { id, id } }
            kit.show("set", m:set("plain!*'()~%41", "v"))
            kit.show("get", m:get("plain!*'()~%41"))
            kit.show("multi", m:get({ "plain!*'()~%41", "none" }))
            kit.show("raw bytes", m:set("\200\255", "v"), m:get({ "\200\255" })["\200\255"])

            local calls = {}
            local p = kit.connect(nil, nil, { key_transform = {
                function(key) calls[#calls + 1] = "e:" .. key; return "pre_" .. key end,
                function(key) calls[#calls + 1] = "u:" .. key; return (key:gsub("^pre_", "")) end,
            } })
            kit.show("prefixed set", p:set("a", "1"))
            kit.show("prefixed get", p:get("a"))
            kit.show("seen raw", m:get("pre_a"))
            kit.show("prefixed multi", p:get({ "a", "b" }))
            local _, _, cas = p:gets("a")
            kit.show("prefixed cas", p:cas("a", "2", cas))
            kit.show("prefixed gets", #p:gets({ "a" }).a)
            kit.show("incr", p:incr("a", 1))
            kit.show("decr", p:decr("a", 1))
            kit.show("touch", p:touch("a", 10))
            kit.show("append", p:append("a", "x"))
            kit.show("delete", p:delete("a"))
            for i, call in ipairs(calls) do ngx.print(call, i == #calls and "\n" or " ") end

            local n = kit.connect(nil, nil, { key_transform = {
                function(key) return key:lower() end, function(key) return key:upper() end } })
            kit.show("upper", n:set("KeY", "v"), n:get({ "kEY" }))
            kit.show("in step", kit.in_step(m), kit.in_step(p), kit.in_step(n))
        }
    }
--- request
GET /t
--- response_body
set: 1
get: "v", "0"
multi: {["plain!*'()~%41"]={"v", "0"}}
raw bytes: 1, {"v", "0"}
prefixed set: 1
prefixed get: "1", "0"
seen raw: "1", "0"
prefixed multi: {a={"1", "0"}}
prefixed cas: 1
prefixed gets: 3
incr: "3"
decr: "2"
touch: 1
append: 1
delete: 1
e:a e:a e:a e:b u:pre_a e:a e:a e:a u:pre_a e:a e:a e:a e:a e:a
upper: 1, {KEY={"v", "0"}}
in step: "yes", "yes", "yes"
--- no_error_log
[error]



=== TEST 2: what the functions get, and what they may return
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local args
            local m = kit.fresh{ key_transform = {
                function(...) args = { n = select("#", ...), ... }; return "k" end,
                function(...) args = { n = select("#", ...), ... }; return "u" end,
            } }
            m:set({ "a table" }, "v")
            kit.show("a table as key", args)
            m:delete(nil)
            kit.show("nil as key", args.n, args[1])
            m:set("x", "v")
            kit.show("string", args)
            kit.show("get", m:get({ "x", "y" }), args)

            local ret
            m = kit.fresh{ key_transform = { function() return ret end, function() return ret end } }
            ret = 42
            kit.show("a number", m:set("k", "v"), m:get("k"))
            kit.show("a number as result key", m:get({ "k" })[42])
            ret = 1.5
            kit.show("a fraction", m:set("k", "v"), m:get("k"))
            kit.show("in step", kit.in_step(m))

            -- unescape decides the key of the result, whatever type it has
            local t = {}
            m = kit.fresh{ key_transform = { tostring, function() return ret end } }
            m:set("k", "v")
            ret = true
            kit.show("unescape to true", m:get({ "k" })[true])
            ret = t
            kit.show("unescape to a table", m:get({ "k" })[t])
            ret = 7
            kit.show("unescape to a number", m:gets({ "k" })[7][1])
            m:set("l", "w")
            ret = "same"
            local res = m:get({ "k", "l" })
            kit.show("two keys, one name", res.same ~= nil, next(res, next(res)))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
a table as key: {{"a table"}, n=1}
nil as key: 1, nil
string: {"x", n=1}
get: {u={"v", "0"}}, {"k", n=1}
a number: 1, "v", "0"
a number as result key: {"v", "0"}
a fraction: 1, "v", "0"
in step: "yes"
unescape to true: {"v", "0"}
unescape to a table: {"v", "0"}
unescape to a number: "v"
two keys, one name: true, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 3: callable tables
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local callable = setmetatable({}, { __call = function(_, key) return "c_" .. key end })
            local back = setmetatable({}, { __call = function(_, key) return key:sub(3) end })
            local m = kit.fresh{ key_transform = { callable, back } }
            kit.show("set", m:set("k", "v"))
            kit.show("get", m:get("k"), m:get({ "k" }))
            kit.show("C functions", kit.fresh{ key_transform = { ngx.md5, ngx.encode_base64 } }:get({ "k" }))
            local s = kit.new{ key_transform = { "a", "b" } }
            assert(s:connect("127.0.0.1", kit.port))
            kit.show("strings", kit.raises(s.get, s, "k"), kit.raises(s.set, s, "k", "v"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set: 1
get: "v", {k={"v", "0"}}
C functions: {}
strings: "raised a string", "raised a string"
in step: "yes"
--- no_error_log
[error]



=== TEST 4: functions that yield
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh{ key_transform = {
                function(key) ngx.sleep(0.002); return "s_" .. key end,
                function(key) ngx.sleep(0.002); return (key:gsub("^s_", "")) end,
            } }
            kit.show("set", m:set("a", "1"), m:set("b", 2))
            kit.show("get", m:get("a"))
            kit.show("multi", m:get({ "a", "b", "c" }))
            kit.show("gets", #m:gets({ "a", "b" }).b)
            kit.show("incr", m:incr("b", 5))
            kit.show("delete", m:delete("b"))
            m:init_pipeline()
            m:set("p", "x")
            m:get("p")
            kit.show("pipeline", m:commit_pipeline())
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set: 1, 1
get: "1", "0"
multi: {a={"1", "0"}, b={"2", "0"}}
gets: 3
incr: "7"
delete: 1
pipeline: {{1}, {"x", "0"}}, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 5: functions that raise
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local broken
            local m = kit.fresh{ key_transform = {
                function(key) if broken then error(broken, 0) end; return key end,
                function(key) return key end,
            } }
            kit.show("set", m:set("k", "v"))
            broken = "no such luck"
            for _, name in ipairs{ "get", "gets", "delete" } do
                kit.show(name, pcall(m[name], m, "k"))
            end
            kit.show("multi", pcall(m.get, m, { "a", "b" }))
            kit.show("set", pcall(m.set, m, "k", "w"))
            kit.show("incr", pcall(m.incr, m, "k", 1))
            kit.show("touch", pcall(m.touch, m, "k", 1))
            kit.show("cas", pcall(m.cas, m, "k", "v", "1"))
            broken = { code = 5 }
            kit.show("an error object", pcall(m.get, m, "k"))
            broken = nil
            kit.show("get", m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set: 1
get: false, "no such luck"
gets: false, "no such luck"
delete: false, "no such luck"
multi: false, "no such luck"
set: false, "no such luck"
incr: false, "no such luck"
touch: false, "no such luck"
cas: false, "no such luck"
an error object: false, {code=5}
get: "v", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 6: only one of the two functions is changed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local keys = { "a b", "c" }
            local m = kit.fresh{ key_transform = {
                ngx.escape_uri, function(key) return "[" .. key .. "]" end } }
            m:set("a b", 1)
            m:set("c", 2)
            local got = m:get(keys)
            kit.show("own unescape", got["[a%20b]"], got["[c]"], got["a b"])
            got = m:gets(keys)
            kit.show("gets", got["[a%20b]"][1], got["[c]"][1])
            m = kit.connect(nil, nil, { key_transform = {
                function(key) return "own_" .. key:gsub(" ", "+") end, ngx.unescape_uri } })
            m:set("a b", 3)
            got = m:get(keys)
            kit.show("own escape", got["own_a b"], got["own_c"])
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
own unescape: {"1", "0"}, {"2", "0"}, nil
gets: "1", "2"
own escape: {"3", "0"}, nil
in step: "yes"
--- no_error_log
[error]
