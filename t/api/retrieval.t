use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: get and gets of one key
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("get miss", m:get("none"))
            kit.show("gets miss", m:gets("none"))
            m:set("k", "v", 0, 42)
            kit.show("get", m:get("k"))
            local v, flags, cas, err = m:gets("k")
            kit.show("gets", v, flags, type(cas), cas:match("^%d+$") ~= nil, err)
            kit.show("gets count", select("#", m:gets("k")))
            kit.show("types", type((m:get("k"))), type((select(2, m:get("k")))))
            m:set("k", "")
            kit.show("empty", m:get("k"))
            kit.show("empty gets", (m:gets("k")))
            m:set("k", "END\r\nVALUE k 0 1\r\nx\r\nEND")
            kit.show("protocol words", m:get("k"))
            kit.show("protocol words gets", (m:gets("k")))
            kit.show("extra arguments", m:get("none", "k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get miss: nil, nil, nil
gets miss: nil, nil, nil, nil
get: "v", "42"
gets: "v", "42", "string", true, nil
gets count: 3
types: "string", "string"
empty: "", "0"
empty gets: ""
protocol words: "END\r\nVALUE k 0 1\r\nx\r\nEND", "0"
protocol words gets: "END\r\nVALUE k 0 1\r\nx\r\nEND"
extra arguments: nil, nil, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 2: get and gets of many keys
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("get {}", m:get({}))
            kit.show("gets {}", m:gets({}))
            kit.show("get {miss}", m:get({ "a" }))
            kit.show("gets {miss}", m:gets({ "a", "b" }))
            m:set("a", "1", 0, 7)
            m:set("b", "")
            m:set("c d", "x\r\ny")
            kit.show("one", m:get({ "a" }))
            kit.show("some", m:get({ "a", "none", "b", "c d" }))
            kit.show("twice the same", m:get({ "a", "a", "b", "a" }))
            local res, err = m:gets({ "a", "none", "b", "c d", "a" })
            for _, key in ipairs{ "a", "b", "c d" } do
                kit.show("gets " .. key, res[key][1], res[key][2], #res[key],
                         (res[key][3]:gsub("%d+", "N")))
            end
            kit.show("gets missing", res.none, err)
            kit.show("count of results", select("#", m:get({ "a" })), select("#", m:gets({ "a" })),
                     select("#", m:get({ "none" })))
            m:set(5, "five")
            kit.show("number in the list", m:get({ 5, "a" }))
            kit.show("keyed by a string", m:get({ 5 })["5"], m:get({ 5 })[5])
            kit.show("hash part ignored", m:get({ x = "a" }))
            kit.show("list and hash", m:get({ "a", x = "b" }))
            kit.show("fresh tables", m:get({}) ~= m:get({}), m:get({ "a" }) ~= m:get({ "a" }))
            local keys = { "a", "c d" }
            m:get(keys)
            kit.show("argument untouched", keys)
            kit.show("nil holes", kit.raises(m.get, m, { nil }))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get {}: {}, nil
gets {}: {}, nil
get {miss}: {}
gets {miss}: {}
one: {a={"1", "7"}}
some: {a={"1", "7"}, b={"", "0"}, ["c d"]={"x\r\ny", "0"}}
twice the same: {a={"1", "7"}, b={"", "0"}}
gets a: "1", "7", 3, "N"
gets b: "", "0", 3, "N"
gets c d: "x\r\ny", "0", 3, "N"
gets missing: nil, nil
count of results: 1, 1, 1
number in the list: {5={"five", "0"}, a={"1", "7"}}
keyed by a string: {"five", "0"}, nil
hash part ignored: {}, nil
list and hash: {a={"1", "7"}}
fresh tables: true, true
argument untouched: {"a", "c d"}
nil holes: "returned {}, nil"
in step: "yes"
--- no_error_log
[error]



=== TEST 3: many keys, many sizes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local keys = {}
            for i = 1, 1000 do
                keys[i] = "key " .. i
                if i % 2 == 0 then m:set(keys[i], string.rep(i .. ".", i % 50), 0, i) end
            end
            for _, name in ipairs{ "get", "gets" } do
                local res = assert(m[name](m, keys))
                local hits, wrong = 0, 0
                for i = 1, 1000 do
                    local r = res["key " .. i]
                    if r then
                        hits = hits + 1
                        if i % 2 == 1 or r[1] ~= string.rep(i .. ".", i % 50)
                            or r[2] ~= tostring(i) then wrong = wrong + 1 end
                    end
                end
                kit.show(name, hits, wrong)
            end
            local sizes = { 1, 2, 1000, 4094, 4095, 4096, 4097, 16383, 65536, 102400, 1000000 }
            for i, n in ipairs(sizes) do
                assert(m:set("size" .. i, string.rep("\r\n", n / 2 + 1):sub(1, n)))
            end
            keys = {}
            for i in ipairs(sizes) do keys[i] = "size" .. i end
            local res, gres = m:get(keys), m:gets(keys)
            local right = 0
            for i, n in ipairs(sizes) do
                local want = string.rep("\r\n", n / 2 + 1):sub(1, n)
                if res[keys[i]][1] == want and gres[keys[i]][1] == want
                    and (m:gets(keys[i])) == want then right = right + 1 end
            end
            kit.show("sizes", right, #sizes)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get: 500, 0
gets: 500, 0
sizes: 11, 11
in step: "yes"
--- no_error_log
[error]



=== TEST 4: keys with every byte, default escaping
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local wrong = {}
            for b = 0, 255 do
                local key = "k" .. string.char(b) .. "z"
                local value = "value of " .. b
                local ok, err = m:set(key, value)
                local got = m:get(key)
                local multi = m:get({ key, "other" })
                local multis = m:gets({ key })
                if not ok or got ~= value or (m:gets(key)) ~= value
                    or not multi[key] or multi[key][1] ~= value
                    or not multis[key] or multis[key][1] ~= value then
                    wrong[#wrong + 1] = b
                end
            end
            kit.show("wrong", wrong)
            local all = {}
            for b = 0, 255 do all[#all + 1] = "k" .. string.char(b) .. "z" end
            local n = 0
            for key, r in pairs(m:get(all)) do
                if r[1] == "value of " .. key:byte(2) then n = n + 1 end
            end
            kit.show("all at once", n)
            kit.show("a%20b is not a b", m:set("a b", "1"), m:get("a%20b"))
            kit.show("a+b is not a b", m:set("a+b", "2"), m:get("a b"))
            kit.show("and comes back as itself", m:get({ "a+b", "a b" }))
            kit.show("utf-8", m:set("ключ", "v"), m:get({ "ключ" })["ключ"])
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
wrong: {}
all at once: 256
a%20b is not a b: 1, nil, nil, nil
a+b is not a b: 1, "1", "0"
and comes back as itself: {["a b"]={"1", "0"}, ["a+b"]={"2", "0"}}
utf-8: 1, {"v", "0"}
in step: "yes"
--- no_error_log
[error]



=== TEST 5: escaping is byte for byte that of ngx.escape_uri
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    c.server.seen = line
                    c:send("END\r\n")
                end
            end)
            local m = kit.connect(srv.port)
            local wrong = 0
            for b = 0, 255 do
                local key = string.char(b)
                m:get(key)
                if srv.seen ~= "get " .. ngx.escape_uri(key) then wrong = wrong + 1 end
            end
            kit.show("wrong", wrong)
            local all = {}
            for b = 0, 255, 5 do all[#all + 1] = string.char(b) end
            all = table.concat(all)
            m:gets({ all, "x y" })
            kit.show("gets", srv.seen == "gets " .. ngx.escape_uri(all) .. " x%20y")
            m:get("AZaz09-._~!*'()")
            kit.show("seen", srv.seen)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
wrong: 0
gets: true
seen: "get AZaz09-._~!*'()"
--- no_error_log
[error]



=== TEST 6: keys that are no strings
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            for _, key in ipairs{ 1, 1.5, -3, 1e15, 1e100, true } do
                kit.show(tostring(key), kit.raises(m.set, m, key, "v" .. tostring(key)),
                         kit.raises(m.get, m, key), kit.raises(m.get, m, tostring(key)))
                kit.show("in a list", kit.raises(m.get, m, { key }))
                kit.show("delete", kit.raises(m.delete, m, key))
            end
            kit.show("function", m:set(print, "v"), m:get(tostring(print)))
            kit.show("table", kit.raises(m.delete, m, setmetatable({}, { __tostring = function() return "t t" end })))
            kit.show("250 bytes", m:set(string.rep("k", 250), "v"), m:get(string.rep("k", 250)))
            kit.show("83 spaces", m:set(string.rep(" ", 83), "v"), m:get(string.rep(" ", 83)))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
1: "returned 1", "returned \"v1\", \"0\"", "returned \"v1\", \"0\""
in a list: "returned {1={\"v1\", \"0\"}}"
delete: "returned 1"
1.5: "returned 1", "returned \"v1.5\", \"0\"", "returned \"v1.5\", \"0\""
in a list: "returned {[\"1.5\"]={\"v1.5\", \"0\"}}"
delete: "returned 1"
-3: "returned 1", "returned \"v-3\", \"0\"", "returned \"v-3\", \"0\""
in a list: "returned {[\"-3\"]={\"v-3\", \"0\"}}"
delete: "returned 1"
1e+15: "returned 1", "returned \"v1e+15\", \"0\"", "returned \"v1e+15\", \"0\""
in a list: "returned {[\"1e+15\"]={\"v1e+15\", \"0\"}}"
delete: "returned 1"
1e+100: "returned 1", "returned \"v1e+100\", \"0\"", "returned \"v1e+100\", \"0\""
in a list: "returned {[\"1e+100\"]={\"v1e+100\", \"0\"}}"
delete: "returned 1"
true: "returned 1", "returned \"vtrue\", \"0\"", "returned \"vtrue\", \"0\""
in a list: "returned {true={\"vtrue\", \"0\"}}"
delete: "returned 1"
function: 1, "v", "0"
table: "returned nil, \"NOT_FOUND\""
250 bytes: 1, "v", "0"
83 spaces: 1, "v", "0"
in step: "yes"
--- no_error_log
[error]
