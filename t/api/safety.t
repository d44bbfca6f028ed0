use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head( tests => 4 );

run_tests();

__DATA__

=== TEST 1: a refused header's value is not executed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("guard", "alive")
            local attack = "flush_all\r\nset pwned 0 0 1\r\n1"
            local long = string.rep("k", 251)
            for _, name in ipairs{ "set", "add", "replace", "append", "prepend" } do
                kit.show(name .. " 251 bytes", m[name](m, long, attack))
            end
            kit.show("cas 251 bytes", m:cas(long, attack, 1))
            kit.show("84 spaces", m:set(string.rep(" ", 84), attack))
            kit.show("empty key", m:set("", attack))
            kit.show("nil key", m:set(nil, attack))
            kit.show("false key", m:set(false, attack))
            kit.show("cas empty key", m:cas("", attack, 1))
            for _, bad in ipairs{ 1.5, "x", "1e3", 1e15, 0/0, math.huge, -math.huge, "0x10", "1.0" } do
                kit.show("exptime", m:set("k", attack, bad))
                kit.show("flags", m:set("k", attack, 0, bad))
                kit.show("cas unique", m:cas("k", attack, bad))
                kit.show("cas exptime", m:cas("k", attack, 1, bad))
                kit.show("cas flags", m:cas("k", attack, 1, 0, bad))
            end
            kit.show("negative flags", m:set("k", attack, 0, -1))
            kit.show("negative cas", m:cas("k", attack, -1))
            kit.show("cas over 64 bits", m:cas("k", attack, "18446744073709551616"))
            kit.show("cas unique nil", m:cas("k", attack))
            kit.show("cas unique empty", m:cas("k", attack, ""))
            kit.show("exptime empty", m:set("k", attack, ""))
            kit.show("flags empty", m:set("k", attack, 0, ""))
            kit.show("guard", m:get("guard"))
            kit.show("pwned", m:get("pwned"))
            kit.show("in step", kit.in_step(m))
            kit.show("set_keepalive", m:set_keepalive())
        }
    }
--- request
GET /t
--- response_body eval
my $bad = 'nil, "CLIENT_ERROR bad command line format"' . "\n";
CORE::join "", (map { "$_ 251 bytes: $bad" } qw( set add replace append prepend cas )),
    "84 spaces: $bad",
    (map { "$_: nil, \"ERROR\"\n" } "empty key", "nil key", "false key", "cas empty key"),
    (map { my $what = $_; "$what: $bad" }
        map { ("exptime", "flags", "cas unique", "cas exptime", "cas flags") } 1 .. 9),
    (map { "$_: $bad" } "negative flags", "negative cas", "cas over 64 bits"),
    (map { "$_: nil, \"ERROR\"\n" } "cas unique nil", "cas unique empty", "exptime empty", "flags empty"),
    qq{guard: "alive", "0"\npwned: nil, nil, nil\nin step: "yes"\nset_keepalive: 1\n};
--- error_log
lua memcached command refused: 
--- no_error_log
[error]



=== TEST 2: keys that are too long or empty, in every other command
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            for _, key in ipairs{ string.rep("k", 251), string.rep("k", 100000), "" } do
                kit.show("get", m:get(key))
                kit.show("gets", m:gets(key))
                kit.show("incr", m:incr(key, 1))
                kit.show("decr", m:decr(key, 1))
                kit.show("delete", m:delete(key))
                kit.show("touch", m:touch(key, 1))
            end
            kit.show("multi-get", m:get({ "a", string.rep("k", 251), "b" }))
            kit.show("multi-gets", m:gets({ "a", string.rep("k", 251), "b" }))
            kit.show("nil", m:get(nil))
            kit.show("nothing", m:gets())
            kit.show("incr nothing", m:incr())
            kit.show("250 fit", m:set(string.rep("k", 250), "v"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body eval
my $all = sub { my $e = shift; qq{get: nil, nil, "$e"\ngets: nil, nil, nil, "$e"\nincr: nil, "$e"
decr: nil, "$e"\ndelete: nil, "$e"\ntouch: nil, "$e"\n} };
my $long = "CLIENT_ERROR bad command line format";
$all->($long) . $all->($long) . $all->("ERROR") . qq{multi-get: nil, "$long"\nmulti-gets: nil, "$long"
nil: nil, nil, "ERROR"\nnothing: nil, nil, nil, "ERROR"\nincr nothing: nil, "ERROR"
250 fit: 1\nin step: "yes"\n};
--- error_log
lua memcached command refused: 
--- no_error_log
[error]



=== TEST 3: raw keys that would be several arguments or commands
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function id(key) return key end
            local m = kit.fresh{ key_transform = { id, id } }
            m:set("guard", "alive")
            local wrong = {}
            for b = 0, 255 do
                local key = "a" .. string.char(b) .. "b"
                local ok, err = m:set(key, "v")
                local bad = b <= 32 or b == 127
                local want = bad and "bad key: contains whitespace or control characters" or nil
                if (ok == nil) ~= bad or err ~= want then wrong[#wrong + 1] = b end
                local v, _, gerr = m:get(key)
                if gerr ~= want or (v == "v") == bad then wrong[#wrong + 1] = -b end
            end
            kit.show("wrong", wrong)
            local key = "x\r\nflush_all"
            kit.show("get", m:get(key))
            kit.show("gets", m:gets(key))
            kit.show("multi-get", m:get({ "guard", key }))
            kit.show("multi-gets", m:gets({ "guard", key }))
            kit.show("set", m:set(key, "v"))
            kit.show("cas", m:cas(key, "v", 1))
            kit.show("delete", m:delete("guard 0\r\nflush_all"))
            kit.show("incr", m:incr(key, 1))
            kit.show("touch", m:touch(key, 1))
            kit.show("a key of one space", m:get(" "))
            kit.show("noreply as a key", m:set("noreply", 1), m:incr("noreply", 1), m:delete("noreply"))
            kit.show("guard", m:get("guard"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
wrong: {}
get: nil, nil, "bad key: contains whitespace or control characters"
gets: nil, nil, nil, "bad key: contains whitespace or control characters"
multi-get: nil, "bad key: contains whitespace or control characters"
multi-gets: nil, "bad key: contains whitespace or control characters"
set: nil, "bad key: contains whitespace or control characters"
cas: nil, "bad key: contains whitespace or control characters"
delete: nil, "bad key: contains whitespace or control characters"
incr: nil, "bad key: contains whitespace or control characters"
touch: nil, "bad key: contains whitespace or control characters"
a key of one space: nil, nil, "bad key: contains whitespace or control characters"
noreply as a key: 1, "2", 1
guard: "alive", "0"
in step: "yes"
--- error_log
lua memcached command refused: 
--- no_error_log
[error]



=== TEST 4: other arguments that would be several
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("guard", "alive")
            m:set("n", 1)
            for _, tail in ipairs{ "\r\nflush_all", " noreply", "\nflush_all", "\t1", " 1\r\nflush_all", "\0" } do
                local arg = "1" .. tail
                local function try(label, ok, err)
                    local head = type(err) == "string" and err:match("^bad [a-z ]+:") or err
                    ngx.say(label, ": ", tostring(ok), " ", tostring(head))
                end
                try("set exptime", m:set("k", "v", arg))
                try("set flags", m:set("k", "v", 0, arg))
                try("cas exptime", m:cas("k", "v", 1, arg))
                try("cas flags", m:cas("k", "v", 1, 0, arg))
                try("cas unique", m:cas("k", "v", arg))
                try("incr", m:incr("n", arg))
                try("decr", m:decr("n", arg))
                try("touch", m:touch("n", arg))
                try("flush_all", m:flush_all(arg))
                try("verbosity", m:verbosity(arg))
                if tail ~= " noreply" then try("stats", m:stats("items" .. tail:gsub("^ 1", ""))) end
            end
            kit.show("the text", m:set("k", "v", "1 2"))
            kit.show("guard", m:get("guard"))
            kit.show("n", m:get("n"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body eval
my $lines = CORE::join "", map { "$_\n" } "set exptime: nil bad exptime:", "set flags: nil bad flags:",
    "cas exptime: nil bad exptime:", "cas flags: nil bad flags:", "cas unique: nil bad cas unique:",
    "incr: nil bad delta:", "decr: nil bad delta:", "touch: nil bad exptime:",
    "flush_all: nil bad time:", "verbosity: nil bad level:";
my $stats = "stats: nil bad args:\n";
"$lines$stats$lines" . "$lines$stats" x 4
    . qq{the text: nil, "bad exptime: contains whitespace or control characters"\n}
    . qq{guard: "alive", "0"\nn: "1", "0"\nin step: "yes"\n};
--- error_log
lua memcached command refused: 
--- no_error_log
[error]



=== TEST 5: noreply as the only argument
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set_timeout(500)
            m:set("n", 1)
            kit.show("touch", m:touch("n", "noreply"))
            kit.show("incr", m:incr("n", "noreply"))
            kit.show("decr", m:decr("n", "noreply"))
            kit.show("flush_all", m:flush_all("noreply"))
            kit.show("verbosity", m:verbosity("noreply"))
            kit.show("cas", m:cas("n", "v", "noreply"))
            kit.show("n", m:get("n"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
touch: nil, "bad exptime: noreply is not supported"
incr: nil, "bad delta: noreply is not supported"
decr: nil, "bad delta: noreply is not supported"
flush_all: nil, "bad time: noreply is not supported"
verbosity: nil, "bad level: noreply is not supported"
cas: nil, "bad cas unique: noreply is not supported"
n: "1", "0"
in step: "yes"
--- error_log
lua memcached command refused: 
--- no_error_log
[error]



=== TEST 6: what the server would have said is said here, in the same words
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local function raw(line, value)
                local c = kit.connect(nil, { pool = "raw" .. math.random() })
                c.sock:send(line .. "\r\n" .. (value and value .. "\r\n" or ""))
                local answer = c.sock:receive()
                c:close()
                return answer
            end
            local same, other = 0, {}
            local function try(line, value, ...)
                local n = select("#", ...)
                local ours = (select(n, ...))
                if ours == raw(line, value) then same = same + 1
                else other[#other + 1] = line:sub(1, 40) .. " " .. tostring(ours) end
            end
            local long = string.rep("k", 251)
            m:set("k", "1")
            try("get " .. long, nil, m:get(long))
            try("gets " .. long, nil, m:gets(long))
            try("delete " .. long, nil, m:delete(long))
            try("touch " .. long .. " 1", nil, m:touch(long, 1))
            try("incr " .. long .. " 1", nil, m:incr(long, 1))
            try("set " .. long .. " 0 0 1", "v", m:set(long, "v"))
            try("get ", nil, m:get(""))
            try("delete ", nil, m:delete(""))
            try("set  0 0 1", "v", m:set("", "v"))
            for _, v in ipairs{ "x", "1.5", "-1", "", "1e3", "18446744073709551616" } do
                try("incr k " .. v, nil, m:incr("k", v))
                try("decr none " .. v, nil, m:decr("none", v))
                try("cas k 0 0 1 " .. v, "v", m:cas("k", "v", v))
            end
            for _, v in ipairs{ "x", "1.5", "", "1e3", "nan" } do
                try("touch k " .. v, nil, m:touch("k", v))
                try("set k 0 " .. v .. " 1", "v", m:set("k", "v", v))
                try("set k " .. v .. " 0 1", "v", m:set("k", "v", 0, v))
                try("verbosity " .. v, nil, m:verbosity(v))
                if v ~= "" then try("flush_all " .. v, nil, m:flush_all(v)) end
            end
            try("touch k ", nil, m:touch("k"))
            try("incr k ", nil, m:incr("k"))
            try("verbosity ", nil, m:verbosity())
            try("verbosity -1", nil, m:verbosity(-1))
            kit.show("same", same, other)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
same: 55, {}
in step: "yes"
--- error_log
lua memcached command refused: 
--- no_error_log
[error]



=== TEST 7: one bad argument in a pipeline spoils its own slot
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function id(key) return key end
            local m = kit.fresh{ key_transform = { id, id } }
            local long = string.rep("k", 251)
            m:init_pipeline()
            kit.show("queued", m:set("a", "1"), m:set(long, "flush_all"), m:get("a"), m:get("x y"),
                m:incr("a", 1), m:incr("a", "1.5"), m:incr("a"), m:touch("a", "x"), m:delete(""),
                m:set("b", "v", "1\r\nflush_all"), m:set("b", "v", 1.5), m:verbosity("noreply"),
                m:stats("x\r\nflush_all"), m:get(""), m:get("a"))
            local res, err = m:commit_pipeline()
            kit.show("commit", #res, err)
            for i, r in ipairs(res) do
                if i == 13 then r[2] = r[2]:match("^bad args:") end
                kit.show(i, r)
            end
            m:init_pipeline()
            m:get(long)
            kit.show("none but refused", m:commit_pipeline())
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
queued: 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
commit: 15, nil
1: {1}
2: {nil, "CLIENT_ERROR bad command line format"}
3: {"1", "0"}
4: {[3]="bad key: contains whitespace or control characters"}
5: {"2"}
6: {nil, "CLIENT_ERROR invalid numeric delta argument"}
7: {nil, "ERROR"}
8: {nil, "CLIENT_ERROR invalid exptime argument"}
9: {nil, "ERROR"}
10: {nil, "bad exptime: contains whitespace or control characters"}
11: {nil, "CLIENT_ERROR bad command line format"}
12: {nil, "bad level: noreply is not supported"}
13: {nil, "bad args:"}
14: {[3]="ERROR"}
15: {"2", "0"}
none but refused: {{[3]="CLIENT_ERROR bad command line format"}}, nil
in step: "yes"
--- error_log
lua memcached command refused: 
--- no_error_log
[error]



=== TEST 8: the length announced is the length sent
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set_timeout(1000)
            kit.show("-0", m:set("k", -0), (m:get("k")):match("^%-?0$") ~= nil)
            local zero = 0
            kit.show("computed -0", m:set("k", -zero), (m:get("k")):match("^%-?0$") ~= nil)
            kit.show("nan", m:set("k", 0/0), (m:get("k")):match("nan"))
            kit.show("-nan", m:set("k", -(0/0)), (m:get("k")):match("nan"))
            kit.show("inf", m:set("k", math.huge), (m:get("k")) == tostring(math.huge))
            kit.show("-inf", m:set("k", -math.huge), (m:get("k")) == tostring(-math.huge))
            kit.show("in a table", m:set("k", { -0, "|", 0/0, "|", -zero }), #(m:get("k")) > 5)
            kit.show("cas", m:cas("k", -zero, (select(3, m:gets("k")))), (m:get("k")):match("^%-?0$") ~= nil)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
-0: 1, true
computed -0: 1, true
nan: 1, "nan"
-nan: 1, "nan"
inf: 1, true
-inf: 1, true
in a table: 1, true
cas: 1, true
in step: "yes"
--- no_error_log
[error]
[alert]



=== TEST 9: a host with a line end forges no log line
--- private: the queue of a pool
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local opts = { pool = "forge", pool_size = 1, backlog = 1 }
            local m = kit.connect(nil, opts)
            local other = kit.new()
            other:set_timeout(30)
            kit.show("connect", other:connect("127.0.0.1\n2026/01/01 00:00:00 [alert] forged", kit.port, opts))
            m:close()
        }
    }
--- request
GET /t
--- response_body
connect: nil, "timeout"
--- error_log
when trying to connect to 127.0.0.1?2026
--- no_error_log
[alert] forged,



=== TEST 10: wrong arguments that the reference takes, or looks at later
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("flags", m:set("k", "v", 0, 4294967296))
            kit.show("table", (pcall(m.set, m, "k", "v", { 1, 2 })))
            kit.show("pool_size", (pcall(m.set_keepalive, m, 1000, {})))
            kit.show("in step", kit.in_step(m))
            m:close()
            kit.show("closed", (pcall(m.touch, m, "k", {})))
            local id = function(s) return s end
            local bad = kit.fresh({ key_transform = { function() end, id } })
            kit.show("transform", (pcall(bad.get, bad, "k")))
        }
    }
--- request
GET /t
--- response_body
flags: nil, "CLIENT_ERROR bad command line format"
table: false
pool_size: false
in step: "yes"
closed: false
transform: false
--- error_log
lua memcached command refused: 
--- no_error_log
[error]
