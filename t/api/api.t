use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head( repeat => 2 );

run_tests();

__DATA__

=== TEST 1: the module is a table of exactly these functions
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local names = {}
            -- what the reference does not have
            local more = {}
            for _, k in ipairs{ "gat", "gats", "meta_arith", "meta_delete", "meta_get", "meta_set",
                "server_of" } do
                more[k] = true
            end
            for k, v in pairs(memcached) do
                if not more[k] then names[#names + 1] = k .. " " .. type(v) end
            end
            table.sort(names)
            for _, name in ipairs(names) do ngx.say(name) end
            kit.show("version", memcached._VERSION)
            kit.show("metatable", getmetatable(memcached))
            kit.show("same table", require "resty.memcached" == memcached)
            kit.show("loaded", package.loaded["resty.memcached"] == memcached)
        }
    }
--- request
GET /t
--- response_body
_VERSION string
add function
append function
cancel_pipeline function
cas function
close function
commit_pipeline function
connect function
decr function
delete function
flush_all function
get function
get_reused_times function
gets function
incr function
init_pipeline function
new function
prepend function
quit function
replace function
set function
set_keepalive function
set_timeout function
set_timeouts function
sslhandshake function
stats function
touch function
verbosity function
version function
version: "0.17"
metatable: nil
same table: true
loaded: true
--- no_error_log
[error]



=== TEST 2: the object is a table whose metatable leads to the module
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local memc, err = memcached:new()
            kit.show("type", type(memc), err)
            kit.show("index is the module", getmetatable(memc).__index == memcached)
            kit.show("one metatable", getmetatable(memcached:new()) == getmetatable(memc))
            local keys = {}
            for k, v in pairs(memc) do keys[#keys + 1] = k .. " " .. type(v) end
            table.sort(keys)
            kit.show("no surprises", type(memc.sock) == "table"
                or type(memc.sock) == "userdata", type(rawget(memc, "sock")) ~= "nil")
            kit.show("escape_key", memc.escape_key("a b/\r\n\0\255~"))
            kit.show("unescape_key", memc.unescape_key("a%20b+c%0d%0A%zz%"))
            kit.show("escape_key is", type(rawget(memc, "escape_key")), memc.escape_key == ngx.escape_uri)
            kit.show("unescape_key is", type(rawget(memc, "unescape_key")), memc.unescape_key == ngx.unescape_uri)
            kit.show("sock is its own", memc.sock ~= memcached:new().sock)
            kit.show("undefined field", memc.nonesuch, rawget(memc, "_reqs"))
            memc.extra = { 1 }
            memc.name = "mine"
            kit.show("own fields", memc.extra, memc.name)
        }
    }
--- request
GET /t
--- response_body
type: "table", nil
index is the module: true
one metatable: true
no surprises: true, true
escape_key: "a%20b%2F%0D%0A%00%FF~"
unescape_key: "a b c\r\n%zz%"
escape_key is: "function", true
unescape_key is: "function", true
sock is its own: true
undefined field: nil, nil
own fields: {1}, "mine"
--- no_error_log
[error]



=== TEST 3: the ways to call new
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local function try(label, ...)
                local memc, err = memcached.new(...)
                ngx.say(label, ": ", type(memc), " ", tostring(err))
            end
            try("method", memcached)
            try("nil self", nil)
            try("no arguments")
            try("object as self", memcached:new())
            try("string as self", "x")
            try("nil opts", memcached, nil)
            try("false opts", memcached, false)
            try("empty opts", memcached, {})
            try("other opts", memcached, { pool = "x", nonsense = 1 })
            try("array opts", memcached, { 1, 2, 3 })
            try("false transform", memcached, { key_transform = false })
            try("empty transform", memcached, { key_transform = {} })
            try("one function", memcached, { key_transform = { tostring } })
            try("only the second", memcached, { key_transform = { nil, tostring } })
            try("false for one", memcached, { key_transform = { tostring, false } })
            try("two functions", memcached, { key_transform = { tostring, tostring } })
            try("two strings", memcached, { key_transform = { "a", "b" } })
            kit.show("results", select("#", memcached:new()),
                select("#", memcached:new({ key_transform = {} })))
            for _, opts in ipairs{ 1, true, print } do
                kit.show("opts " .. type(opts), kit.raises(memcached.new, memcached, opts))
            end
            kit.show("opts string", type(memcached:new("x")))
            for _, tr in ipairs{ 1, true, print } do
                kit.show("key_transform " .. type(tr),
                         kit.raises(memcached.new, memcached, { key_transform = tr }))
            end
            local f, g = function(k) return k end, function(k) return k end
            local memc = memcached:new{ key_transform = { f, g } }
            kit.show("fields", memc.escape_key == f, memc.unescape_key == g)
        }
    }
--- request
GET /t
--- response_body
method: table nil
nil self: table nil
no arguments: table nil
object as self: table nil
string as self: table nil
nil opts: table nil
false opts: table nil
empty opts: table nil
other opts: table nil
array opts: table nil
false transform: table nil
empty transform: nil expecting key_transform = { escape, unescape } table
one function: nil expecting key_transform = { escape, unescape } table
only the second: nil expecting key_transform = { escape, unescape } table
false for one: nil expecting key_transform = { escape, unescape } table
two functions: table nil
two strings: table nil
results: 1, 2
opts number: "raised a string"
opts boolean: "raised a string"
opts function: "raised a string"
opts string: "table"
key_transform number: "raised a string"
key_transform boolean: "raised a string"
key_transform function: "raised a string"
fields: true, true
--- no_error_log
[error]



=== TEST 4: every method called on the module table
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local m = memcached
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("sslhandshake", m:sslhandshake())
            kit.show("set_timeout", m:set_timeout(100))
            kit.show("set_timeouts", m:set_timeouts(1, 2, 3))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("close", m:close())
            for _, name in ipairs{ "set", "add", "replace", "append", "prepend" } do
                kit.show(name, m[name](m, "k", "v"))
                kit.show(name .. " nil value", kit.raises(m[name], m, "k"))
            end
            kit.show("cas", m:cas("k", "v", "1"))
            kit.show("get", m:get("k"))
            kit.show("get table", m:get({ "k" }))
            kit.show("get {}", m:get({}))
            kit.show("gets", m:gets("k"))
            kit.show("gets table", m:gets({ "k" }))
            kit.show("touch", m:touch("k", 1))
            kit.show("flush_all", m:flush_all())
            kit.show("delete", m:delete("k"))
            kit.show("incr", m:incr("k", 1))
            kit.show("decr", m:decr("k", 1))
            kit.show("stats", m:stats())
            kit.show("version", m:version())
            kit.show("quit", m:quit())
            kit.show("verbosity", m:verbosity(1))
            kit.show("commit_pipeline", m:commit_pipeline())
            kit.show("cancel_pipeline", m:cancel_pipeline())
            kit.show("no arguments", m.get(m), kit.raises(m.get))
        }
    }
--- request
GET /t
--- response_body
connect: nil, "not initialized"
sslhandshake: nil, "not initialized"
set_timeout: nil, "not initialized"
set_timeouts: nil, "not initialized"
set_keepalive: nil, "not initialized"
get_reused_times: nil, "not initialized"
close: nil, "not initialized"
set: nil, "not initialized"
set nil value: "returned nil, \"not initialized\""
add: nil, "not initialized"
add nil value: "returned nil, \"not initialized\""
replace: nil, "not initialized"
replace nil value: "returned nil, \"not initialized\""
append: nil, "not initialized"
append nil value: "returned nil, \"not initialized\""
prepend: nil, "not initialized"
prepend nil value: "returned nil, \"not initialized\""
cas: nil, "not initialized"
get: nil, nil, "not initialized"
get table: nil, "not initialized"
get {}: nil, "not initialized"
gets: nil, nil, nil, "not initialized"
gets table: nil, "not initialized"
touch: nil, "not initialized"
flush_all: nil, "not initialized"
delete: nil, "not initialized"
incr: nil, "not initialized"
decr: nil, "not initialized"
stats: nil, "not initialized"
version: nil, "not initialized"
quit: nil, "not initialized"
verbosity: nil, "not initialized"
commit_pipeline: nil, "no pipeline"
cancel_pipeline: (none)
no arguments: nil, "raised a string"
--- no_error_log
[error]



=== TEST 5: every method before connect
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("set_timeout", m:set_timeout(100))
            kit.show("set_timeouts", m:set_timeouts(1, 2, 3))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("close", m:close())
            for _, name in ipairs{ "set", "add", "replace", "append", "prepend" } do
                kit.show(name, m[name](m, "k", "v"))
            end
            kit.show("cas", m:cas("k", "v", "1"))
            kit.show("get", m:get("k"))
            kit.show("get table", m:get({ "k" }))
            kit.show("get {}", m:get({}))
            kit.show("gets", m:gets("k"))
            kit.show("gets table", m:gets({ "k" }))
            kit.show("gets {}", m:gets({}))
            kit.show("touch", m:touch("k", 1))
            kit.show("flush_all", m:flush_all())
            kit.show("flush_all time", m:flush_all(1))
            kit.show("delete", m:delete("k"))
            kit.show("incr", m:incr("k", 1))
            kit.show("decr", m:decr("k", 1))
            kit.show("stats", m:stats())
            kit.show("stats items", m:stats("items"))
            kit.show("version", m:version())
            kit.show("quit", m:quit())
            kit.show("verbosity", m:verbosity(1))
            kit.show("commit_pipeline", m:commit_pipeline())
            kit.show("init_pipeline", m:init_pipeline())
            kit.show("queue", m:set("k", "v"))
            kit.show("commit", m:commit_pipeline())
            kit.show("commit again", m:commit_pipeline())
        }
    }
--- request
GET /t
--- response_body
set_timeout: 1
set_timeouts: 1
set_keepalive: nil, "closed"
get_reused_times: nil, "closed"
close: nil, "closed"
set: nil, "closed"
add: nil, "closed"
replace: nil, "closed"
append: nil, "closed"
prepend: nil, "closed"
cas: nil, "closed"
get: nil, nil, "closed"
get table: nil, "closed"
get {}: {}, nil
gets: nil, nil, nil, "closed"
gets table: nil, "closed"
gets {}: {}, nil
touch: nil, "closed"
flush_all: nil, "closed"
flush_all time: nil, "closed"
delete: nil, "closed"
incr: nil, "closed"
decr: nil, "closed"
stats: nil, "closed"
stats items: nil, "closed"
version: nil, "closed"
quit: nil, "closed"
verbosity: nil, "closed"
commit_pipeline: nil, "no pipeline"
init_pipeline: nil
queue: 1
commit: nil, "closed"
commit again: nil, "no pipeline"
--- error_log
attempt to send data on a closed socket



=== TEST 6: every method after close
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect()
            kit.show("close", m:close())
            kit.show("set_timeout", m:set_timeout(100))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("close again", m:close())
            kit.show("set", m:set("k", "v"))
            kit.show("cas", m:cas("k", "v", "1"))
            kit.show("get", m:get("k"))
            kit.show("get table", m:get({ "k" }))
            kit.show("gets", m:gets("k"))
            kit.show("gets table", m:gets({ "k" }))
            kit.show("touch", m:touch("k", 1))
            kit.show("flush_all", m:flush_all())
            kit.show("delete", m:delete("k"))
            kit.show("incr", m:incr("k", 1))
            kit.show("decr", m:decr("k", 1))
            kit.show("stats", m:stats())
            kit.show("version", m:version())
            kit.show("quit", m:quit())
            kit.show("verbosity", m:verbosity(1))
            m:init_pipeline()
            m:get("k")
            kit.show("commit", m:commit_pipeline())
            kit.show("connects again", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
close: 1
set_timeout: 1
set_keepalive: nil, "closed"
get_reused_times: nil, "closed"
close again: nil, "closed"
set: nil, "closed"
cas: nil, "closed"
get: nil, nil, "closed"
get table: nil, "closed"
gets: nil, nil, nil, "closed"
gets table: nil, "closed"
touch: nil, "closed"
flush_all: nil, "closed"
delete: nil, "closed"
incr: nil, "closed"
decr: nil, "closed"
stats: nil, "closed"
version: nil, "closed"
quit: nil, "closed"
verbosity: nil, "closed"
commit: nil, "closed"
connects again: 1
in step: "yes"
--- error_log
attempt to send data on a closed socket



=== TEST 7: method values, subclasses, patched methods
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local memc = kit.fresh()

            local set, get = memcached.set, memcached.get
            kit.show("function values", set(memc, "k", "v"), get(memc, "k"))
            for _, cmd in ipairs{ "incr", "decr" } do
                memc:set("n", 5)
                kit.show("memc[cmd] " .. cmd, memc[cmd](memc, "n", 2))
            end
            kit.show("pcall", pcall(memc.get, memc, "k"))

            -- a class on top
            local Cache = setmetatable({}, { __index = memcached })
            Cache.__index = Cache
            function Cache:new()
                local o = assert(memcached.new(self))
                o.hits = 0
                return setmetatable(o, Cache)
            end
            function Cache:get(key)
                self.hits = self.hits + 1
                return memcached.get(self, "p:" .. key)
            end
            function Cache:set(key, ...)
                return memcached.set(self, "p:" .. key, ...)
            end
            local cache = Cache:new()
            kit.show("sub connect", cache:connect("127.0.0.1", kit.port))
            kit.show("sub set", cache:set("a", "1"))
            kit.show("sub get", cache:get("a"))
            kit.show("sub hits", cache.hits)
            kit.show("sub incr", cache:incr("p:a", 1))
            cache:close()

            -- a wrapper by delegation
            local proxy = setmetatable({}, { __index = function(_, name)
                return function(_, ...) return memc[name](memc, ...) end
            end })
            kit.show("proxy", proxy:set("b", "2"), proxy:get("b"))

            -- no call through the object's own methods
            memc.set = function() return "patched on the object" end
            kit.show("patched object", memc:set("k", "v"))
            memc.set = nil
            kit.show("unpatched", memc:set("k", "v2"))

            local original = memcached.get
            memcached.get = function(self, key) return "patched", original(self, key) end
            local res = { memc:get("k") }
            memcached.get = original
            kit.show("patched module", res)

            -- the transform is looked up at each call
            memc.escape_key = function(key) return "x_" .. key end
            memc:set("k", "via x")
            memc.escape_key = ngx.escape_uri
            kit.show("escape_key replaced", memc:get("x_k"))

            -- any table with the right sock is an object
            local other = { sock = memc.sock, escape_key = memc.escape_key,
                            unescape_key = memc.unescape_key }
            kit.show("plain table", memcached.get(other, "x_k"))
            kit.show("sock moved", memcached.get(setmetatable(other, { __index = memcached }), "x_k"))
            memc.sock = nil
            kit.show("sock removed", memc:get("k"))
            kit.show("sock removed", memc:set("k", "v"))
        }
    }
--- request
GET /t
--- response_body
function values: 1, "v", "0"
memc[cmd] incr: "7"
memc[cmd] decr: "3"
pcall: true, "v", "0"
sub connect: 1
sub set: 1
sub get: "1", "0"
sub hits: 1
sub incr: "2"
proxy: 1, "2", "0"
patched object: "patched on the object"
unpatched: 1
patched module: {"patched", "v2", "0"}
escape_key replaced: "via x", "0"
plain table: "via x", "0"
sock moved: "via x", "0"
sock removed: nil, nil, "not initialized"
sock removed: nil, "not initialized"
--- no_error_log
[error]



=== TEST 8: what raises when the receiver is not an object
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            for _, name in ipairs{ "get", "set", "delete", "incr", "stats", "version",
                    "connect", "close", "set_keepalive", "set_timeout",
                    "get_reused_times", "init_pipeline", "commit_pipeline" } do
                local f = memcached[name]
                kit.show(name, kit.raises(f), kit.raises(f, nil, "k", "v"),
                         kit.raises(f, 1, "k", "v"), kit.raises(f, true, "k", "v"))
            end
            kit.show("get on {}", memcached.get({}, "k"))
            kit.show("set on {}", memcached.set({}, "k", "v"))
            kit.show("sock is not one", kit.raises(memcached.get, { sock = {}, escape_key = tostring }, "k"))
            kit.show("sock is a number", kit.raises(memcached.get, { sock = 1, escape_key = tostring }, "k"))
        }
    }
--- request
GET /t
--- response_body
get: "raised a string", "raised a string", "raised a string", "raised a string"
set: "raised a string", "raised a string", "raised a string", "raised a string"
delete: "raised a string", "raised a string", "raised a string", "raised a string"
incr: "raised a string", "raised a string", "raised a string", "raised a string"
stats: "raised a string", "raised a string", "raised a string", "raised a string"
version: "raised a string", "raised a string", "raised a string", "raised a string"
connect: "raised a string", "raised a string", "raised a string", "raised a string"
close: "raised a string", "raised a string", "raised a string", "raised a string"
set_keepalive: "raised a string", "raised a string", "raised a string", "raised a string"
set_timeout: "raised a string", "raised a string", "raised a string", "raised a string"
get_reused_times: "raised a string", "raised a string", "raised a string", "raised a string"
init_pipeline: "raised a string", "raised a string", "raised a string", "raised a string"
commit_pipeline: "raised a string", "raised a string", "raised a string", "raised a string"
get on {}: nil, nil, "not initialized"
set on {}: nil, "not initialized"
sock is not one: "raised a string"
sock is a number: "raised a string"
--- no_error_log
[error]
