use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head( skip => 'the reference has no such methods' );

run_tests();

__DATA__

=== TEST 1: gat and gats with one key
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local function ttl(key)
                local item = m:meta_get(key, { ttl = true })
                return item and item.ttl
            end
            kit.show("gat missing", m:gat("k", 60))
            kit.show("gats missing", m:gats("k", 60))
            m:set("k", "value", 0, 7)
            kit.show("gat", m:gat("k", 60))
            kit.show("ttl", ttl("k"))
            kit.show("string", m:gat("k", "50"))
            kit.show("ttl", ttl("k"))
            local value, flags, cas, err = m:gats("k", 40)
            local _, _, same = m:gets("k")
            kit.show("gats", value, flags, cas == same, type(cas), err)
            kit.show("ttl", ttl("k"))
            kit.show("never", m:gat("k", 0))
            kit.show("ttl", ttl("k"))
            kit.show("any key", m:set("a b\r\n", "x"), m:gat("a b\r\n", 60))
            kit.show("empty", m:set("e", ""), m:gat("e", 60))
            local large = ("0123456789"):rep(50000)
            m:set("l", large)
            local got = m:gat("l", 60)
            kit.show("large", got == large, ttl("l"))
            kit.show("at once", m:gat("k", -1))
            kit.show("gone", m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
gat missing: nil, nil, nil
gats missing: nil, nil, nil, nil
gat: "value", "7"
ttl: 60
string: "value", "7"
ttl: 50
gats: "value", "7", true, "string", nil
ttl: 40
never: "value", "7"
ttl: -1
any key: 1, "x", "0"
empty: 1, "", "0"
large: true, 60
at once: "value", "7"
gone: nil, nil, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 2: arguments that are refused
--- object: a client is never closed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            for _, exptime in ipairs{ "", "soon", 1.5, "1.5", 2 ^ 63, "1 k2", "1\r\nflush_all", "noreply", 0 / 0 } do
                kit.show(kit.fmt(exptime), m:gat("k", exptime))
            end
            kit.show("nil", m:gat("k"))
            kit.show("gats nil", m:gats("k"))
            kit.show("list nil", m:gat{ "k" })
            for _, exptime in ipairs{ true, print } do
                kit.show("exptime " .. type(exptime), kit.raises(m.gat, m, "k", exptime),
                    kit.raises(m.gat, m, { "k" }, exptime))
            end
            kit.show("empty", m:gat("", 60))
            kit.show("long", m:gats(("k"):rep(251), 60))
            local function same(key) return key end
            local raw = kit.connect(nil, nil, { key_transform = { same, same } })
            kit.show("raw", raw:gat("k\r\nflush_all", 60))
            kit.show("raw list", raw:gat({ "k", "k l" }, 60))
            kit.show("untouched", m:get("k"))
            kit.show("in step", kit.in_step(m))
            local module = require "resty.memcached"
            kit.show("module", module.gat(module, "k", 60))
            kit.show("module", module.gats(module, "k", 60))
            kit.show("module", module.gats(module, { "k" }, 60))
            m:close()
            kit.show("closed", m:gat("k", 60))
            kit.show("closed", m:gats("k", 60))
            kit.show("closed", m:gats({ "k" }, 60))
        }
    }
--- request
GET /t
--- response_body
"": nil, nil, "CLIENT_ERROR invalid exptime argument"
"soon": nil, nil, "CLIENT_ERROR invalid exptime argument"
1.5: nil, nil, "CLIENT_ERROR invalid exptime argument"
"1.5": nil, nil, "CLIENT_ERROR invalid exptime argument"
9.2233720368548e+18: nil, nil, "CLIENT_ERROR invalid exptime argument"
"1 k2": nil, nil, "bad exptime: contains whitespace or control characters"
"1\r\nflush_all": nil, nil, "bad exptime: contains whitespace or control characters"
"noreply": nil, nil, "bad exptime: noreply is not supported"
nan: nil, nil, "CLIENT_ERROR invalid exptime argument"
nil: nil, nil, "CLIENT_ERROR invalid exptime argument"
gats nil: nil, nil, nil, "CLIENT_ERROR invalid exptime argument"
list nil: nil, "CLIENT_ERROR invalid exptime argument"
exptime boolean: "raised a string", "raised a string"
exptime function: "raised a string", "raised a string"
empty: nil, nil, "ERROR"
long: nil, nil, nil, "CLIENT_ERROR bad command line format"
raw: nil, nil, "bad key: contains whitespace or control characters"
raw list: nil, "bad key: contains whitespace or control characters"
untouched: "v", "0"
in step: "yes"
module: nil, nil, "not initialized"
module: nil, nil, nil, "not initialized"
module: nil, "not initialized"
closed: nil, nil, "closed"
closed: nil, nil, nil, "closed"
closed: nil, "closed"
--- no_error_log
[error]



=== TEST 3: lists of keys
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("a", 1, 0, 5)
            m:set("b c", 2)
            kit.show("none", m:gat({}, 60))
            kit.show("gat", m:gat({ "a", "b c", "d", "" }, 60))
            local found = m:gats({ "a", "b c" }, 50)
            local _, _, cas = m:gets("a")
            kit.show("gats", found.a[1], found.a[2], found.a[3] == cas, #found["b c"])
            kit.show("ttl", m:meta_get("a", { ttl = true, value = false }),
                m:meta_get("b c", { ttl = true, value = false }))
            kit.show("empty keys", m:gat({ "", "" }, 60))
            kit.show("numbers", m:set("17", "x"), m:gat({ 17 }, 60))
            local unescaped = kit.connect(nil, nil, { key_transform = {
                ngx.escape_uri, function(key) return "<" .. ngx.unescape_uri(key) .. ">" end } })
            kit.show("transform", unescaped:gat({ "a", "b c", "d" }, 60))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
none: {}, nil
gat: {a={"1", "5"}, ["b c"]={"2", "0"}}
gats: "1", "5", true, 3
ttl: {ttl=50}, {ttl=50}, nil
empty keys: nil, "ERROR"
numbers: 1, {17={"x", "0"}}
transform: {["<a>"]={"1", "5"}, ["<b c>"]={"2", "0"}}
in step: "yes"
--- no_error_log
[error]



=== TEST 4: long lists go as several commands
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local function fill(n, pad)
                local keys = {}
                for i = 1, n do
                    keys[i] = pad .. i
                    if i % 3 > 0 then m:set(keys[i], i) end
                end
                return keys
            end
            local function check(label, found, err)
                if not found then return kit.show(label, found, err) end
                local count, wrong = 0, 0
                for key, item in pairs(found) do
                    count = count + 1
                    if item[1] ~= key:match("%d+$") then wrong = wrong + 1 end
                end
                kit.show(label, count, wrong)
            end
            for _, n in ipairs{ 10, 100, 1000, 5000 } do
                check(n, m:gat(fill(n, "key "), 60))
            end
            check("long keys", m:gat(fill(100, ("k"):rep(240)), 60))
            check("escaped keys", m:gats(fill(100, (" "):rep(82)), 60))
            local keys = fill(300, "key ")
            for i = 1, 300, 7 do keys[i] = "" end
            check("with empty ones", m:gat(keys, 60))
            local items = m:meta_get(keys[299], { ttl = true })
            kit.show("touched", items.ttl)
            keys[299] = ("k"):rep(300)
            check("one is too long", m:gat(keys, 60))
            keys[299] = ("k"):rep(3000)
            check("one is much too long", m:gat(keys, 60))
            local same = function(key) return key end
            local raw = kit.connect(nil, nil, { key_transform = { same, same } })
            for i = 1, 300 do keys[i] = "raw" .. i; raw:set(keys[i], i) end
            check("own transform", raw:gat(keys, 60))
            local failing = kit.connect(nil, nil, { key_transform = { same,
                function(key) if key == "raw200" then error("no such key") end return key end } })
            kit.show("raising", kit.raise_text(failing.gat, failing, keys, 60))
            kit.show("in step", kit.in_step(failing), kit.in_step(raw), kit.in_step(m))
            m:init_pipeline()
            m:get("key 1")
            check("overtakes an open pipeline", m:gat(fill(0, ""), 60))
            kit.show("pipeline", m:commit_pipeline())
        }
    }
--- request
GET /t
--- response_body
10: 7, 0
100: 67, 0
1000: 667, 0
5000: 3334, 0
long keys: 67, 0
escaped keys: 67, 0
with empty ones: 171, 0
touched: 60
one is too long: nil, "CLIENT_ERROR bad command line format"
one is much too long: nil, "CLIENT_ERROR bad command line format"
own transform: 300, 0
raising: "no such key"
in step: "yes", "yes", "yes"
overtakes an open pipeline: 0, 0
pipeline: {{"1", "0"}}, nil
--- no_error_log
[error]



=== TEST 5: in a pipeline
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v", 0, 3)
            local _, _, cas = m:gets("k")
            m:init_pipeline()
            kit.show("added", m:gat("k", 60))
            m:gats("k", 50)
            m:gat("none", 60)
            m:gat("k", "soon")
            m:get("k")
            local results = m:commit_pipeline()
            local gats = results[2]
            gats[3] = gats[3] == cas
            for i, result in ipairs(results) do kit.show(i, result) end
            kit.show("ttl", m:meta_get("k", { ttl = true }))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
added: 1
1: {"v", "3"}
2: {"v", "3", true}
3: {}
4: {[3]="CLIENT_ERROR invalid exptime argument"}
5: {"v", "3"}
ttl: {ttl=50, value="v"}, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 6: what a server should not say
--- object: a client is never closed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            local reply
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    ngx.say("< ", line)
                    c:send(reply)
                end
            end)
            local function try(text, name, ...)
                reply = text
                local m = kit.connect(srv.port)
                local res = kit.vals(m[name](m, ...))
                ngx.say(name, ": ", res, "; ", kit.vals(m:set_keepalive()))
            end
            try("VALUE k 0 1\r\nx\r\nEND\r\n", "gat", "k", 60)
            try("VALUE l 0 1\r\nx\r\nEND\r\n", "gat", "k", 60)
            try("VALUE k 0 1\r\nx\r\nEND\r\n", "gats", "k", 60)
            try("VALUE 60 0 1\r\nx\r\nEND\r\n", "gat", "k", 60)
            try("VALUE k 0 1\r\nx\r\nEND\r\n", "gat", { "k", "l" }, 60)
            try("VALUE 60 0 1\r\nx\r\nEND\r\n", "gat", { "k", "l" }, 60)
            try("ERROR\r\n", "gat", "k", 60)
            try("ERROR\r\n", "gat", { "k", "l" }, 60)
            try("TOUCHED\r\n", "gat", "k", 60)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
< gat 60 k
gat: "x", "0"; 1
< gat 60 k
gat: nil, nil, "bad reply: unexpected key"; nil, "closed"
< gats 60 k
gats: nil, nil, nil, "VALUE k 0 1"; nil, "closed"
< gat 60 k
gat: nil, nil, "bad reply: unexpected key"; nil, "closed"
< gat 60 k l
gat: {k={"x", "0"}}; 1
< gat 60 k l
gat: nil, "bad reply: unexpected key"; nil, "closed"
< gat 60 k
gat: nil, nil, "ERROR"; 1
< gat 60 k l
gat: nil, "ERROR"; nil, "closed"
< gat 60 k
gat: nil, nil, "TOUCHED"; nil, "closed"
--- no_error_log
[error]



=== TEST 7: equal ones of one turn are all asked
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            local before = kit.stat("cmd_touch")
            local threads = {}
            for i = 1, 8 do
                threads[i] = ngx.thread.spawn(function()
                    local each = kit.connect()
                    each:get("warm")
                    return each:gat("k", 60)
                end)
            end
            for i = 1, 8 do
                local _, value = ngx.thread.wait(threads[i])
                if value ~= "v" then ngx.say("got ", value) end
            end
            kit.show("touched", kit.stat("cmd_touch") - before)
        }
    }
--- request
GET /t
--- response_body
touched: 8
--- no_error_log
[error]
