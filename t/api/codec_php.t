use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# The codec "php" against PHP itself.

our $HttpConfig = TestEnv::head( skip => 'the reference has no codecs', init => <<'LUA' );
    function php(...)
        local out = assert(io.popen("php t/lib/values.php " .. table.concat({ kit.port, ... }, " ") .. " 2>&1"))
        local text = out:read("*a")
        out:close()
        return text
    end
LUA

run_tests();

__DATA__

=== TEST 1: what PHP has written
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            ngx.print(php("write"))
            local m = kit.connect(nil, nil, { codec = "php" })
            for _, key in ipairs{ "string", "empty", "bytes", "integer", "negative", "largest", "exact", "double",
                                  "tenth", "huge", "whole", "infinity", "minus infinity", "nan", "true", "false", "null",
                                  "array", "json", "json list", "user", "user integer", "zlib", "fastlz", "none" } do
                local value, flags, err = m:get(key)
                kit.show(key, type(value), value, flags, err)
            end
            local list = m:get("zlib json")
            kit.show("zlib json", #list, list[1], list[2000])
            local found = m:get{ "integer", "true", "json list", "null", "user" }
            kit.show("list", found)
            m:init_pipeline()
            m:get("double")
            m:get("false")
            m:get("array")
            kit.show("pipeline", m:commit_pipeline())
            kit.show("gat", m:gat("json list", 60))
        }
    }
--- request
GET /t
--- response_body
string: "string", "abc", "0", nil
empty: "string", "", "0", nil
bytes: "string", "\x00\xff\r\n", "0", nil
integer: "number", 42, "0", nil
negative: "number", -5, "0", nil
largest: "string", "9223372036854775807", "0", nil
exact: "number", 9.007199254741e+15, "0", nil
double: "number", 1.5, "0", nil
tenth: "number", 0.1, "0", nil
huge: "number", 1e+300, "0", nil
whole: "number", 3, "0", nil
infinity: "number", inf, "0", nil
minus infinity: "number", -inf, "0", nil
nan: "number", nan, "0", nil
true: "boolean", true, "0", nil
false: "boolean", false, "0", nil
null: "nil", nil, nil, "value of PHP type 4 (serialized) is not supported"
array: "nil", nil, nil, "value of PHP type 4 (serialized) is not supported"
json: "table", {a={1, 2.5, "x", true, userdata}, o={k="v"}}, "0", nil
json list: "table", {1, 2, 3}, "0", nil
user: "string", "x", "5", nil
user integer: "number", 7, "5", nil
zlib: "string", <6000 bytes 3290028393>, "0", nil
fastlz: "nil", nil, nil, "value that PHP has compressed with fastlz is not supported"
none: "nil", nil, nil, nil
zlib json: 2000, "abc", "abc"
list: {integer={42, "0"}, ["json list"]={{1, 2, 3}, "0"}, null={nil, "4", err="value of PHP type 4 (serialized) is not supported"}, true={true, "0"}, user={"x", "5"}}
pipeline: {{1.5, "0"}, {false, "0"}, {[3]="value of PHP type 4 (serialized) is not supported"}}, nil
gat: {1, 2, 3}, "0"
--- no_error_log
[error]
--- timeout: 20



=== TEST 2: what PHP reads
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.fresh()
            local m = kit.connect(nil, nil, { codec = "php" })
            local values = {
                { "string", "abc" }, { "empty", "" }, { "integer", 42 }, { "negative", -5 }, { "exact", 2 ^ 53 },
                { "double", 1.5 }, { "tenth", 0.1 }, { "huge", 1e300 }, { "infinity", 1 / 0 }, { "minus", -1 / 0 },
                { "nan", 0 / 0 }, { "zero", -0.0 }, { "true", true }, { "false", false }, { "null", ngx.null },
                { "list", { 1, 2, 3 } }, { "object", { k = { "v", 1.5 } } }, { "digits", "9007199254740993" },
            }
            local keys = {}
            for i, pair in ipairs(values) do
                local ok, err = m:set(pair[1], pair[2])
                if not ok then kit.show(pair[1], ok, err) end
                keys[i] = pair[1]
            end
            m:set("user", "x", 0, 5)
            m:set("userint", 7, 0, "65535")
            m:meta_set("meta", { a = true }, { ttl = 60 })
            keys[#keys + 1], keys[#keys + 2], keys[#keys + 3] = "user", "userint", "meta"
            ngx.print(php("read", unpack(keys)))
            for i, key in ipairs(keys) do
                local value, flags, err = m:get(key)
                kit.show(key, value, flags, err)
            end
        }
    }
--- request
GET /t
--- response_body
string: string "abc" flags 0
empty: string "" flags 0
integer: integer 42 flags 0
negative: integer -5 flags 0
exact: integer 9007199254740992 flags 0
double: double 1.5 flags 0
tenth: double 0.1 flags 0
huge: double 1.0E+300 flags 0
infinity: double INF flags 0
minus: double -INF flags 0
nan: double NAN flags 0
zero: double -0.0 flags 0
true: boolean true flags 0
false: boolean false flags 0
null: NULL null flags 0
list: array [1,2,3] flags 0
object: object {"k":["v",1.5]} flags 0
digits: string "9007199254740993" flags 0
user: string "x" flags 5
userint: integer 7 flags 65535
meta: object {"a":true} flags 0
string: "abc", "0", nil
empty: "", "0", nil
integer: 42, "0", nil
negative: -5, "0", nil
exact: 9.007199254741e+15, "0", nil
double: 1.5, "0", nil
tenth: 0.1, "0", nil
huge: 1e+300, "0", nil
infinity: inf, "0", nil
minus: -inf, "0", nil
nan: nan, "0", nil
zero: -0, "0", nil
true: true, "0", nil
false: false, "0", nil
null: userdata, "0", nil
list: {1, 2, 3}, "0", nil
object: {k={"v", 1.5}}, "0", nil
digits: "9007199254740993", "0", nil
user: "x", "5", nil
userint: 7, "65535", nil
meta: {a=true}, "0", nil
--- no_error_log
[error]
--- timeout: 20



=== TEST 3: what cannot be written
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            local m = kit.connect(nil, nil, { codec = "php" })
            kit.show("nil", m:set("k", nil))
            kit.show("function", m:set("k", print))
            kit.show("thread", m:set("k", coroutine.create(function() end)))
            kit.show("table", m:set("k", { print }))
            local deep = {}
            for _ = 1, 2000 do deep = { deep } end
            kit.show("deep", m:set("k", deep))
            for _, flags in ipairs{ 65536, -1, 1.5, "x", true } do kit.show("flags", m:set("k", "v", 0, flags)) end
            kit.show("nothing", plain:get("k"))
        }
    }
--- request
GET /t
--- response_body
nil: nil, "a nil cannot be a PHP value"
function: nil, "a function cannot be a PHP value"
thread: nil, "a thread cannot be a PHP value"
table: nil, "Cannot serialise function: type not supported"
deep: nil, "Cannot serialise, excessive nesting (1001)"
flags: nil, "bad flags: expecting an integer from 0 to 65535"
flags: nil, "bad flags: expecting an integer from 0 to 65535"
flags: nil, "bad flags: expecting an integer from 0 to 65535"
flags: nil, "bad flags: expecting an integer from 0 to 65535"
flags: nil, "bad flags: expecting an integer from 0 to 65535"
nothing: nil, nil, nil
--- no_error_log
[error]



=== TEST 4: values that claim to be PHP's
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_memcached_max_value_size 100k;
        content_by_lua_block {
            local plain = kit.fresh()
            local m = kit.connect(nil, nil, { codec = "php" })
            local function try(label, text, flags)
                plain:set("k", text, 0, flags)
                local value, _, err = m:get("k")
                kit.show(label, type(value) == "table" and #value or value, err)
            end
            local function le(n)
                return string.char(n % 256, math.floor(n / 256) % 256, math.floor(n / 65536) % 256, math.floor(n / 2 ^ 24))
            end
            -- 102400 zeros
            local z = ngx.decode_base64("eNrtwTEBAAAAwqD1T20ND6A") -- cut off
            try("cut off", le(102400) .. z, 48)
            try("no stream", le(10), 48)
            try("junk", le(10) .. "junk junk junk", 48)
            try("no length", "ab", 48)
            try("empty", "", 48)
            try("too large", le(102401) .. z, 48)
            try("much too large", "\255\255\255\255" .. z, 48)
            local stored = ngx.decode_base64("eJwBCgD1/zAxMjM0NTY3ODkK/wIO")
            try("right", le(10) .. stored, 48)
            try("less than it says", le(11) .. stored, 48)
            try("more than it says", le(9) .. stored, 48)
            try("nothing, it says", le(0) .. stored, 48)
            try("as an integer", le(10) .. stored, 49)
            try("not JSON", "{", 6)
            try("not JSON", "", 6)
            try("deep JSON", ("["):rep(50000) .. ("]"):rep(50000), 6)
            try("wide JSON", "[" .. ("1,"):rep(50000 - 2) .. "1]", 6)
            try("not an integer", "1x", 1)
            try("no boolean", "yes", 3)
            try("msgpack", "x", 7)
            try("unknown", "x", 9)
            try("bits", "x", 512)
            plain:set("k", "5")
            plain:set("n", "10", 0, 1)
            plain:decr("n", 1)
            kit.show("counted down", m:get("n"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
cut off: nil, "bad PHP value: cannot be inflated"
no stream: nil, "bad PHP value: cannot be inflated"
junk: nil, "bad PHP value: cannot be inflated"
no length: nil, "bad PHP value: cannot be inflated"
empty: nil, "bad PHP value: cannot be inflated"
too large: nil, "PHP value of 102401 bytes exceeds the limit of 102400"
much too large: nil, "PHP value of 4294967295 bytes exceeds the limit of 102400"
right: "0123456789", nil
less than it says: nil, "bad PHP value: cannot be inflated"
more than it says: nil, "bad PHP value: cannot be inflated"
nothing, it says: nil, "bad PHP value: cannot be inflated"
as an integer: 123456789, nil
not JSON: nil, "bad PHP value: Expected object key string but found T_END at character 2"
not JSON: nil, "bad PHP value: Expected value but found T_END at character 1"
deep JSON: nil, "bad PHP value: Found too many nested data structures (1001) at character 1001"
wide JSON: 49999, nil
not an integer: nil, "bad PHP value: not an integer"
no boolean: nil, "bad PHP value: not a boolean"
msgpack: nil, "value of PHP type 7 (msgpack) is not supported"
unknown: nil, "value of PHP type 9 (unknown) is not supported"
bits: nil, "value that PHP has compressed with an unknown method is not supported"
counted down: 9, "0"
in step: "yes"
--- no_error_log
[error]
