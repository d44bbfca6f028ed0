use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Lines in error.log that explain what Lua is told in few words. They are of this module.
our $HttpConfig = TestEnv::head( tests => 4, skip => 'the lines of this module' );

run_tests();

__DATA__

=== TEST 1: a refused command is logged at warn, and repeats are counted
--- http_config eval: $::HttpConfig
--- config
    error_log logs/error.log warn;
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            for _ = 1, 50 do
                m:set("k", "v", "60s")
            end
            for _ = 1, 3 do
                m:get(("k"):rep(300))
            end
            m:init_pipeline()
            m:incr("k", "one")
            m:commit_pipeline()
            ngx.say("done")
        }
    }
--- request
GET /t
--- response_body
done
--- grep_error_log eval: qr/\[\w+\] .*?command refused: [^,]+/
--- grep_error_log_out eval
my $line = sub { qr/\[warn\] \S+ \S+ lua memcached command refused: \Q$_[0]\E\n/ };
my $all = CORE::join "", ($line->('set: exptime "60s" is not an integer in range')) x 8,
    ($line->('get: key is 300 bytes long before escaping')) x 3,
    $line->('incr: delta "one" is not an integer in range');
qr/\A$all\z/
--- no_error_log
[error]



=== TEST 2: "not initialized" is explained once for each place
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local m = kit.connect()
            for _ = 1, 3 do
                kit.show("dot", m.get("k"))
                kit.show("dot", m.incr("k", 1))
            end
            kit.show("module", memcached:get("k"))
            kit.show("module", memcached:close())
            kit.show("no sock", m.set({}, "k", "v"))
            kit.show("called by C", pcall(m.gets, "k"))
        }
    }
--- request
GET /t
--- response_body
dot: nil, nil, "not initialized"
dot: nil, "not initialized"
dot: nil, nil, "not initialized"
dot: nil, "not initialized"
dot: nil, nil, "not initialized"
dot: nil, "not initialized"
module: nil, nil, "not initialized"
module: nil, "not initialized"
no sock: nil, "not initialized"
called by C: true, nil, nil, nil, "not initialized"
--- grep_error_log eval: qr/\[\w+\] .*?lua memcached: .*?at \S+:\d+/
--- grep_error_log_out eval
my $line = sub { qr/\[warn\] \S+ \S+ lua memcached: "not initialized": \Q$_[0]\E.*, at content_by_lua\(nginx.conf:\d+\):$_[1]\n/ };
my $colon = 'call methods with a colon, as in memc:get(key)';
my $all = CORE::join "",
    $line->("get was called with a string as its object: $colon", 5),
    $line->("incr was called with a string as its object: $colon", 6),
    $line->("get was called on the module itself: make an object first, with local memc = memcached:new()", 8),
    $line->("close was called on the module itself", 9),
    $line->('set was called on a table that new() did not make, or that has lost its field "sock"', 10),
    $line->("a method was called with a string as its object: $colon", 11);
qr/\A$all\z/
--- no_error_log
[error]



=== TEST 3: "bad request" is explained once for each place
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect()
            kit.shared.memc = m
            ngx.print(kit.http($TEST_NGINX_SERVER_PORT, "/other"), "\n")
            kit.show("own request", m:get("nothing"))
        }
    }
    location = /other {
        content_by_lua_block {
            local m = kit.shared.memc
            for _ = 1, 3 do
                kit.show("get", kit.raise_text(function() m:get("k") end))
                kit.show("set_keepalive", kit.raise_text(m.set_keepalive, m))
                kit.show("send", kit.raise_text(m.sock.send, m.sock, "version\r\n"))
            end
        }
    }
--- request
GET /t
--- response_body eval
qq{get: "bad request"\nset_keepalive: "bad request"\nsend: "bad request"\n} x 3 . "own request: nil, nil, nil\n"
--- grep_error_log eval: qr/\[\w+\] .*?lua memcached: .*?at \S+:\d+/
--- grep_error_log_out eval
my $line = sub { qr/\[warn\] \S+ \S+ lua memcached: "bad request": $_[0] was called on an object that was connected in another request, .*, at $_[1]\n/ };
my $all = CORE::join "",
    $line->("get", qr/content_by_lua\(nginx.conf:\d+\):4/),
    # its caller is pcall, in the suite's own module
    $line->("a method", qr/\S+testkit.lua:\d+/);
qr/\A$all\z/
--- no_error_log
[error]



=== TEST 4: unknown options are named once, and nothing else changes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            for _ = 1, 3 do
                local m = memcached:new{ multipex = 2, key_transform = { ngx.escape_uri, ngx.unescape_uri } }
                kit.show("connect", m:connect("127.0.0.1", kit.port,
                    { poolsize = 5, ssl = true, [1] = "x", pool = "p", pool_size = 3, backlog = 2 }))
                kit.show("get", m:get("nothing"))
                m:close()
            end
            memcached:new{ ["a\n[error] \"" .. ("b"):rep(100)] = 1, multiplex = false }
            memcached:new{ setmetatable({}, { __index = { other = 1 } }) }
            memcached:new("x")
            memcached:new{ codec = "php" }
            kit.show("unix", kit.new():connect("unix:" .. kit.unix:sub(6), { poolsize = 1, time_out = 2 }))
        }
    }
--- request
GET /t
--- response_body eval
"connect: 1\nget: nil, nil, nil\n" x 3 . "unix: 1\n"
--- grep_error_log eval: qr/\[\w+\] .*?lua memcached: .*?(?=, client)/
--- grep_error_log_out eval
my $place = qr/content_by_lua\(nginx.conf:\d+\):\d+/;
my $line = sub { qr/\[warn\] \S+ \S+ lua memcached: unknown option \Q$_[0]\E of $_[1] is ignored: it takes $_[2], at $place\n/ };
my $new = sub { $line->($_[0], "new", "key_transform, multiplex, codec") };
my $connect = sub { $line->($_[0], "connect", "pool, pool_size, backlog") };
my $long = '"a\n[error] \"' . "b" x 53 . '"...';
my @connect = map { $connect->($_) } '"poolsize"', '"ssl"', 'whose name is a number';
my $any = CORE::join "|", @connect;
my $all = $new->('"multipex"') . "(?:$any){3}" . $new->($long) . $new->('whose name is a number')
    . qr/\[warn\] \S+ \S+ lua memcached: new ignores its argument, a string, at $place: a table was expected\n/
    . $connect->('"time_out"');
qr/\A$all\z/
--- no_error_log
[crit]



=== TEST 5: a timeout that is no number
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for _ = 1, 2 do
                kit.show("set_timeout", m:set_timeout("1s"))
            end
            kit.show("number", m:set_timeouts("100", 100, nil))
            m:connect("127.0.0.1", kit.port)
            kit.show("connected", m:set_timeouts({}, 0, "0"))
            kit.show("get", m:get("nothing"))
        }
    }
--- request
GET /t
--- response_body
set_timeout: 1
set_timeout: 1
number: 1
connected: 1
get: nil, nil, nil
--- grep_error_log eval: qr/\[\w+\] .*?lua memcached: .*?(?=, client)/
--- grep_error_log_out eval
my $line = sub { qr/\[warn\] \S+ \S+ lua memcached: set_timeouts ignores $_[0], at content_by_lua\(nginx.conf:\d+\):$_[1]: a number of milliseconds was expected, and 0 is taken\n/ };
my $all = $line->('"1s"', 4) . $line->('a table', 8);
qr/\A$all\z/
--- no_error_log
[error]



=== TEST 6: texts that nobody has heard of are bounded
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            for i = 1, 200 do
                memcached:new{ ["option" .. i] = true }
            end
            ngx.say("done")
        }
    }
--- request
GET /t
--- response_body
done
--- grep_error_log eval: qr/unknown option/
--- grep_error_log_out eval
"unknown option\n" x 64
--- no_error_log
[error]



=== TEST 7: replies that are refused, and more than may wait
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_memcached_max_value_size 10;
        content_by_lua_block {
            local srv = kit.replies("VALUE k 0 11\r\n01234567890\r\nEND\r\n", "END\r\n")
            kit.show("get", kit.connect(srv.port):get("k"))
            srv:close()
            local opts = { pool = "small", pool_size = 1, backlog = 0 }
            local first = kit.connect(nil, opts, { multiplex = false })
            local second = kit.new{ multiplex = false }
            kit.show("connect", second:connect("127.0.0.1", kit.port, opts))
            first:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "bad reply: value of 11 bytes exceeds the limit of 10"
connect: nil, "too many waiting connect operations"
--- grep_error_log eval: qr/\[\w+\] .*?lua memcached: .*?(?=, client)/
--- grep_error_log_out eval
qr/\A\[notice\] \S+ \S+ lua memcached: bad reply: value of 11 bytes exceeds the limit of 10: see lua_memcached_max_value_size
\[warn\] \S+ \S+ lua memcached: too many waiting connect operations: the pool and its backlog are full, see the options pool_size and backlog of connect
\z/
--- no_error_log
[error]



=== TEST 8: more than the bounds of sharing allow
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_memcached_multiplex 1 max_operations=1;
        content_by_lua_block {
            local srv = kit.fake(function(c) c:line() ngx.sleep(0.1) c:send("END\r\n") c:drain(1) end)
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            local waits = ngx.thread.spawn(function() return a:get("a") end)
            kit.show("second", b:get("b"))
            kit.show("first", select(2, ngx.thread.wait(waits)))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
second: nil, nil, "too many waiting operations"
first: nil, nil, nil
--- grep_error_log eval: qr/\[\w+\] .*?lua memcached: .*?(?=, client)/
--- grep_error_log_out eval
qr/\A\[warn\] \S+ \S+ lua memcached: too many waiting operations: see max_operations and max_size of lua_memcached_multiplex\n\z/
--- no_error_log
[error]
