use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: set, add, replace, append, prepend
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("replace missing", m:replace("k", "v"))
            kit.show("append missing", m:append("k", "v"))
            kit.show("prepend missing", m:prepend("k", "v"))
            kit.show("add", m:add("k", "one"))
            kit.show("add again", m:add("k", "two"))
            kit.show("get", m:get("k"))
            kit.show("set", m:set("k", "three"))
            kit.show("replace", m:replace("k", "four"))
            kit.show("append", m:append("k", "+"))
            kit.show("prepend", m:prepend("k", "-"))
            kit.show("get", m:get("k"))
            kit.show("flags", m:set("k", "v", 0, 1234), m:get("k"))
            kit.show("append keeps flags", m:append("k", "w", 0, 9), m:get("k"))
            kit.show("largest flags", m:set("k", "v", 0, 4294967295), m:get("k"))
            kit.show("exptime", m:set("k", "v", 100), m:get("k"))
            kit.show("expires at once", m:set("k", "v", -1), m:get("k"))
            kit.show("absolute exptime", m:set("k", "v", ngx.time() + 100), m:get("k"))
            kit.show("past exptime", m:set("k", "v", ngx.time() - 100), m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
replace missing: nil, "NOT_STORED"
append missing: nil, "NOT_STORED"
prepend missing: nil, "NOT_STORED"
add: 1
add again: nil, "NOT_STORED"
get: "one", "0"
set: 1
replace: 1
append: 1
prepend: 1
get: "-four+", "0"
flags: 1, "v", "1234"
append keeps flags: 1, "vw", "1234"
largest flags: 1, "v", "4294967295"
exptime: 1, "v", "0"
expires at once: 1, nil, nil, nil
absolute exptime: 1, "v", "0"
past exptime: 1, nil, nil, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 2: exptime and flags: absent, nil, false, strings, whole floats
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            for _, name in ipairs{ "set", "replace", "add" } do
                if name == "add" then m:delete("k") end
                kit.show(name .. " nil nil", m[name](m, "k", "v", nil, nil))
            end
            kit.show("get", m:get("k"))
            kit.show("false false", m:set("k", "v", false, false), m:get("k"))
            kit.show("nil exptime, flags", m:set("k", "v", nil, 7), m:get("k"))
            kit.show("strings", m:set("k", "v", "100", "8"), m:get("k"))
            kit.show("leading zeros", m:set("k", "v", "007", "0009"), m:get("k"))
            kit.show("floats that are whole", m:set("k", "v", 100.0, 3.0), m:get("k"))
            kit.show("hex and exponent in Lua", m:set("k", "v", 0x10, 1e3), m:get("k"))
            kit.show("extra arguments", m:set("k", "v", 0, 5, "more", {}), m:get("k"))
            kit.show("negative zero string", m:set("k", "v", "-0"), m:get("k"))
            for _, bad in ipairs{ true, print } do
                kit.show("exptime " .. type(bad), kit.raises(m.set, m, "k", "v", bad))
                kit.show("flags " .. type(bad), kit.raises(m.set, m, "k", "v", 0, bad))
            end
            kit.show("exptime function", kit.raises(m.set, m, "k", "v", print))
            kit.show("flags table", kit.raises(m.set, m, "k", "v", 0, { print }))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set nil nil: 1
replace nil nil: 1
add nil nil: 1
get: "v", "0"
false false: 1, "v", "0"
nil exptime, flags: 1, "v", "7"
strings: 1, "v", "8"
leading zeros: 1, "v", "9"
floats that are whole: 1, "v", "3"
hex and exponent in Lua: 1, "v", "1000"
extra arguments: 1, "v", "5"
negative zero string: 1, "v", "0"
exptime boolean: "raised a string"
flags boolean: "raised a string"
exptime function: "raised a string"
flags function: "raised a string"
exptime function: "raised a string"
flags table: "raised a string"
in step: "yes"
--- no_error_log
[error]



=== TEST 3: values: strings of every kind
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("empty", m:set("k", ""), m:get("k"))
            kit.show("CRLF", m:set("k", "a\r\nb\r\n"), m:get("k"))
            kit.show("only CRLF", m:set("k", "\r\n"), m:get("k"))
            kit.show("looks like a reply", m:set("k", "END\r\nSTORED\r\n"), m:get("k"))
            kit.show("NUL", m:set("k", "\0a\0"), m:get("k"))
            local bytes = {}
            for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
            bytes = table.concat(bytes)
            kit.show("every byte", m:set("k", bytes), (m:get("k")) == bytes)
            for _, n in ipairs{ 1, 1023, 1024, 4095, 4096, 4097, 8192, 16384,
                                65535, 65536, 102400, 1000000, 1048000 } do
                local v = string.rep("x\r\ny", n / 4 + 1):sub(1, n)
                local ok, err = m:set("big", v)
                local got, flags = m:get("big")
                kit.show(n, ok, err, got == v, flags)
            end
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
empty: 1, "", "0"
CRLF: 1, "a\r\nb\r\n", "0"
only CRLF: 1, "\r\n", "0"
looks like a reply: 1, "END\r\nSTORED\r\n", "0"
NUL: 1, "\x00a\x00", "0"
every byte: 1, true
1: 1, nil, true, "0"
1023: 1, nil, true, "0"
1024: 1, nil, true, "0"
4095: 1, nil, true, "0"
4096: 1, nil, true, "0"
4097: 1, nil, true, "0"
8192: 1, nil, true, "0"
16384: 1, nil, true, "0"
65535: 1, nil, true, "0"
65536: 1, nil, true, "0"
102400: 1, nil, true, "0"
1000000: 1, nil, true, "0"
1048000: 1, nil, true, "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 4: values: numbers
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            for _, v in ipairs{ 0, 1, -1, 32, 1.5, -2.25, 1e15, 123456789012, 2^53,
                                1e100, 1e-5, 0.1, 1/3, 3.0, 2^31, -2^31 } do
                kit.show(tostring(v), m:set("k", v), m:get("k"))
            end
            kit.show("huge", m:set("k", math.huge), m:get("k"))
            kit.show("append", m:set("k", 1), m:append("k", 2), m:prepend("k", 3), m:get("k"))
            kit.show("add, replace", m:delete("k"), m:add("k", 1), m:replace("k", 2), m:get("k"))
            local _, _, cas = m:gets("k")
            kit.show("cas", m:cas("k", 77, cas), m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
0: 1, "0", "0"
1: 1, "1", "0"
-1: 1, "-1", "0"
32: 1, "32", "0"
1.5: 1, "1.5", "0"
-2.25: 1, "-2.25", "0"
1e+15: 1, "1e+15", "0"
123456789012: 1, "123456789012", "0"
9.007199254741e+15: 1, "9.007199254741e+15", "0"
1e+100: 1, "1e+100", "0"
1e-05: 1, "1e-05", "0"
0.1: 1, "0.1", "0"
0.33333333333333: 1, "0.33333333333333", "0"
3: 1, "3", "0"
2147483648: 1, "2147483648", "0"
-2147483648: 1, "-2147483648", "0"
huge: 1, "inf", "0"
append: 1, 1, 1, "312", "0"
add, replace: 1, 1, 1, "2", "0"
cas: 1, "77", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 5: values: nested tables
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("flat", m:set("k", { "a", "b", "c" }), m:get("k"))
            kit.show("numbers", m:set("k", { 1, 2.5, "x" }), m:get("k"))
            kit.show("nested", m:set("k", { "a", { "b", { "c", { 1 } }, {} }, "d" }), m:get("k"))
            kit.show("empty", m:set("k", {}), m:get("k"))
            kit.show("nested empty", m:set("k", { {}, { {} } }), m:get("k"))
            kit.show("hash only", m:set("k", { a = 1, b = "x" }), m:get("k"))
            kit.show("array and hash", m:set("k", { "a", x = "y", "b" }), m:get("k"))
            kit.show("add", m:delete("k"), m:add("k", { 1, "\r\n" }), m:get("k"))
            kit.show("replace", m:replace("k", { 2, "" }), m:get("k"))
            kit.show("append", m:append("k", { 3, { 4 } }), m:get("k"))
            kit.show("prepend", m:prepend("k", { { { 5 } }, 6 }), m:get("k"))
            local t = { "a", { "b" } }
            m:set("k", t)
            kit.show("argument untouched", t)
            local deep = "leaf"
            for _ = 1, 150 do deep = { deep } end
            kit.show("150 deep", m:set("k", deep), m:get("k"))
            local wide = {}
            for i = 1, 3000 do wide[i] = { i, "," } end
            kit.show("wide", m:set("k", wide), m:get("k"))
            kit.show("with nil in it", kit.raises(m.set, m, "k", { "a", nil, print }))
            kit.show("with true", kit.raises(m.set, m, "k", { "a", true }))
            kit.show("with a function", kit.raises(m.set, m, "k", { print }))
            kit.show("with nested false", kit.raises(m.set, m, "k", { "a", { false } }))
            kit.show("a table in cas", kit.raises(m.cas, m, "k", { "a" }, "1"))
            kit.show("metatable ignored", m:set("k",
                setmetatable({ "a" }, { __tostring = function() return "z" end })), m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
flat: 1, "abc", "0"
numbers: 1, "12.5x", "0"
nested: 1, "abc1d", "0"
empty: 1, "", "0"
nested empty: 1, "", "0"
hash only: 1, "", "0"
array and hash: 1, "ab", "0"
add: 1, 1, "1\r\n", "0"
replace: 1, "2", "0"
append: 1, "234", "0"
prepend: 1, "56234", "0"
argument untouched: {"a", {"b"}}
150 deep: 1, "leaf", "0"
wide: 1, <13893 bytes 3839060366>, "0"
with nil in it: "returned 1"
with true: "raised a string"
with a function: "raised a string"
with nested false: "raised a string"
a table in cas: "raised a string"
metatable ignored: 1, "a", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 6: values that raise, and leave the connection as it was
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "before")
            for _, name in ipairs{ "set", "add", "replace", "append", "prepend" } do
                for _, v in ipairs{ "nil", true, false, print, coroutine.create(function() end), ngx.null } do
                    if v == "nil" then v = nil end
                    kit.show(name .. " " .. type(v), kit.raises(m[name], m, "k", v))
                end
                kit.show(name .. " without value", kit.raises(m[name], m, "k"))
                kit.show(name .. " without arguments", kit.raises(m[name], m))
            end
            for _, v in ipairs{ "nil", true, print } do
                if v == "nil" then v = nil end
                kit.show("cas " .. type(v), kit.raises(m.cas, m, "k", v, "1"))
            end
            kit.show("get", m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set nil: "raised a string"
set boolean: "raised a string"
set boolean: "raised a string"
set function: "raised a string"
set thread: "raised a string"
set userdata: "raised a string"
set without value: "raised a string"
set without arguments: "raised a string"
add nil: "raised a string"
add boolean: "raised a string"
add boolean: "raised a string"
add function: "raised a string"
add thread: "raised a string"
add userdata: "raised a string"
add without value: "raised a string"
add without arguments: "raised a string"
replace nil: "raised a string"
replace boolean: "raised a string"
replace boolean: "raised a string"
replace function: "raised a string"
replace thread: "raised a string"
replace userdata: "raised a string"
replace without value: "raised a string"
replace without arguments: "raised a string"
append nil: "raised a string"
append boolean: "raised a string"
append boolean: "raised a string"
append function: "raised a string"
append thread: "raised a string"
append userdata: "raised a string"
append without value: "raised a string"
append without arguments: "raised a string"
prepend nil: "raised a string"
prepend boolean: "raised a string"
prepend boolean: "raised a string"
prepend function: "raised a string"
prepend thread: "raised a string"
prepend userdata: "raised a string"
prepend without value: "raised a string"
prepend without arguments: "raised a string"
cas nil: "raised a string"
cas boolean: "raised a string"
cas function: "raised a string"
get: "before", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 7: cas
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local _
            kit.show("missing key", m:cas("k", "v", "1"))
            m:set("k", "one", 0, 3)
            local v, flags, cas, err = m:gets("k")
            kit.show("gets", v, flags, type(cas), err)
            kit.show("cas", m:cas("k", "two", cas, 0, 4))
            kit.show("get", m:get("k"))
            kit.show("cas again", m:cas("k", "three", cas))
            kit.show("get", m:get("k"))
            _, _, cas = m:gets("k")
            kit.show("number", m:cas("k", "four", tonumber(cas)))
            _, _, cas = m:gets("k")
            kit.show("nil exptime and flags", m:cas("k", "five", cas, nil, nil), m:get("k"))
            _, _, cas = m:gets("k")
            kit.show("string arguments", m:cas("k", "six", cas, "0", "12"), m:get("k"))
            _, _, cas = m:gets("k")
            kit.show("exptime", m:cas("k", "seven", cas, -1), m:get("k"))
            kit.show("largest cas", m:set("k", "x"), m:cas("k", "y", "18446744073709551615"))
            kit.show("cas 0", m:cas("k", "y", "0"))
            local big = string.rep("c", 200000)
            _, _, cas = m:gets("k")
            kit.show("big", m:cas("k", big, cas), (m:get("k")) == big)
            _, _, cas = m:gets("k")
            kit.show("CRLF", m:cas("k", "\r\n", cas), m:get("k"))
            kit.show("empty", m:cas("k", "", (select(3, m:gets("k")))), m:get("k"))
            for _, bad in ipairs{ true, print } do
                kit.show("unique " .. type(bad), kit.raises(m.cas, m, "k", "v", bad))
            end
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
missing key: nil, "NOT_FOUND"
gets: "one", "3", "string", nil
cas: 1
get: "two", "4"
cas again: nil, "EXISTS"
get: "two", "4"
number: 1
nil exptime and flags: 1, "five", "0"
string arguments: 1, "six", "12"
exptime: 1, nil, nil, nil
largest cas: 1, nil, "EXISTS"
cas 0: nil, "EXISTS"
big: 1, true
CRLF: 1, "\r\n", "0"
empty: 1, "", "0"
unique boolean: "raised a string"
unique function: "raised a string"
in step: "yes"
--- no_error_log
[error]



=== TEST 8: a value over the server's limit
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "before")
            local big = string.rep("x", 8 * 1024 * 1024)
            local ok, err = m:set("k", big)
            kit.show("set", ok, err)
            kit.show("get", m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set: nil, "SERVER_ERROR object too large for cache"
get: nil, nil, nil
in step: "yes"
--- no_error_log
[error]
--- timeout: 20



=== TEST 9: what arrives at the server
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local seen
            local srv = kit.fake(function(c)
                while true do
                    local data
                    for _ = 1, 100 do
                        data = c:drain(0.03)
                        if data ~= "" then break end
                    end
                    if data == "" then return end
                    seen = data
                    c:send("STORED\r\n")
                end
            end)
            local m = kit.connect(srv.port)
            local function try(name, ...)
                local ok, err = m[name](m, ...)
                kit.show(name, ok, err, seen)
            end
            try("set", "k", "v")
            try("add", "a b", "v", 1, 2)
            try("replace", "k", { 1, { "x" } }, "3", "4")
            try("append", 5, 6)
            try("prepend", "k", "")
            try("cas", "k", "v", 10, 11, 12)
            try("set", "k", "v", -1, 0)
            try("touch", "k", 5)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: 1, nil, "set k 0 0 1\r\nv\r\n"
add: 1, nil, "add a%20b 2 1 1\r\nv\r\n"
replace: 1, nil, "replace k 4 3 2\r\n1x\r\n"
append: 1, nil, "append 5 0 0 1\r\n6\r\n"
prepend: 1, nil, "prepend k 0 0 0\r\n\r\n"
cas: 1, nil, "cas k 12 11 1 10\r\nv\r\n"
set: 1, nil, "set k 0 -1 1\r\nv\r\n"
touch: 1, nil, "touch k 5\r\n"
--- no_error_log
[error]
