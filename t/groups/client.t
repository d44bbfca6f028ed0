use strict;
use warnings;

use lib 't/lib';

use Test::More;
use Time::HiRes qw( sleep );
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;
use TestCerts;
use TestEnv::Memcached;

# Clients of servers used as one.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;
my ( $spare, $other, $late, $stalls ) = map { TestEnv::start_memcached() } 1 .. 4;
my @tls  = map { TestEnv::start_memcached( args => TestCerts::memcached_args('good') ) } 1 .. 2;
my $dead = TestEnv::free_port();

sub servers { return GroupServers::lines(@_) }

my $http = qq{
    upstream three   { zone three 64k; hash \$lua_memcached_key consistent; @{[ servers( 'max_fails=0', @ports ) ]} }
    upstream moves   { zone moves 64k; lua_memcached_hash modula; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $dead ) ]} }
    upstream off     { zone off 64k; lua_memcached_hash modula; lua_memcached_failover off; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $dead ) ]} }
    upstream returns { zone returns 64k; lua_memcached_hash modula; @{[ servers( 'max_fails=1 fail_timeout=1s', $ports[0], $late ) ]} }
    upstream stalls  { zone stalls 64k; lua_memcached_hash modula; @{[ servers( 'max_fails=0', $ports[0], $stalls ) ]} }
    upstream spare   { server 127.0.0.1:$spare; }
    upstream itself  { lua_memcached_hash ketama; @{[ servers( '', $other, $ports[0] ) ]} }
    upstream tls     { lua_memcached_hash ketama; @{[ servers( '', @tls ) ]} }
    upstream rr      { @{[ servers( '', @ports ) ]} }
    lua_socket_log_errors off;
    lua_ssl_trusted_certificate @{[ TestCerts::dir() ]}/ca.pem;
    lua_memcached_queue timeout=300ms;
    @{[ GroupServers::init(qq{
        ports, spare, dead, late, other, stalls = { @{[ join ', ', @ports ]} }, $spare, $dead, $late, $other, $stalls
        new = require("resty.memcached.client").new
        three, nowhere, unfit = new{ server = "three" }, new{ server = "nowhere" }, new{ server = "rr" }
        php = new{ server = "three", codec = "php" }
        moves, off, returns, stalled = new{ server = "moves" }, new{ server = "off" }, new{ server = "returns" }, new{ server = "stalls", timeouts = 150 }
        mapped = new{ server = "cache.test:11211" }
        pooled = new{ server = "cache.test:11211", pool = "p" }
        by_place = new{ server = "127.0.0.1:$other" }
        function key_for(c, port, beginning)
            for i = 1, 10000 do
                local key = (beginning or "key") .. i
                if c:server_of(key) == "127.0.0.1:" .. port then return key end
            end
        end
        function at(port, key)
            local m = require "resty.memcached":new()
            m:set_timeout(1000)
            assert(m:connect("127.0.0.1", port))
            return (m:get(key))
        end
        -- What a server says of itself, by a connection that is closed.
        function stat(port, name)
            local m = require "resty.memcached":new{ multiplex = false }
            m:set_timeout(1000)
            assert(m:connect("127.0.0.1", port, { pool = "stat" .. port }))
            local lines = m:stats()
            m:close()
            for _, line in ipairs(lines) do
                local n = line:match("^STAT " .. name .. " (%d+)")
                if n then return tonumber(n) end
            end
        end
        function opened()
            local sum = 0
            for _, port in ipairs(ports) do sum = sum + stat(port, "total_connections") end
            return sum
        end
    }) ]}
    init_worker_by_lua_block { ngx.timer.at(0, function() three:set("init_worker", "timer") end) }
};
my $server = GroupServers::location() . qq{
    lua_memcached_upstream cache.test:11211 spare;
    location = /mapped  { lua_memcached_upstream 127.0.0.1:$other itself; content_by_lua_block { say(by_place:server_of("k")) say("", by_place:set(ngx.var.arg_key, "mapped")) } }
    location = /direct  { content_by_lua_block { say(by_place:server_of("k")) say("", by_place:set(ngx.var.arg_key, "direct")) } }
} . q{
    location = /log { content_by_lua_block { ngx.print("x") } log_by_lua_block {
        local ok, err = pcall(three.get, three, "k") ngx.log(ngx.NOTICE, "TOLD ", ok, " ", err) } }
    location = /load {
        content_by_lua_block {
            local key = ngx.var.arg_key
            assert(three:set(key, key))
            ngx.print(three:get(key) == key and "right" or "wrong")
        }
    }
};
my $nginx = LiveNginx->start( http => $http, server => $server );

sub lua    { return GroupServers::lua( $nginx, @_ ) }
sub logged { return GroupServers::logged( $nginx, @_ ) }

subtest 'options' => sub {
    is( lua(q{ say(nowhere:get("k")) say("", nowhere:set("k", 1)) say("", nowhere:pipeline(function(p) p:get("k") end)) }),
        'nil nil there is no upstream "nowhere" nil there is no upstream "nowhere" nil there is no upstream "nowhere"', 'no block' );
    like( lua(q{ say(unfit:get("k")) }), qr/\Anil nil upstream "rr" does not distribute by key/, 'a block without a method' );
    like( lua(q{ new{ server = "three", pool = "p" } }), qr/bad option "pool": it is not for upstreams, got "p"\z/, 'pool, for a name' );
    like( lua(q{ pooled:get("k") }), qr/bad argument #3 to 'connect' \("pool" is not for upstreams\)\z/, '... and for a server that stands for one' )
        for 1 .. 2;
    is( lua(q{ say(new{ server = "THREE" }:set("k", 1)) }), 1, 'capitals' );
    is( lua(q{ say(mapped:set("mapped", 1), mapped:server_of("k"), at(spare, "mapped")) }), "1 127.0.0.1:$spare 1", 'lua_memcached_upstream' );
};

my $methods = q{
    local right, servers = 0, {}
    for i = 1, 60 do
        local key = "m" .. i
        assert(c:set(key, "v" .. i))
        local port = c:server_of(key):match(":(%d+)$")
        servers[port] = true
        if at(tonumber(port), key) == "v" .. i and c:get(key) == "v" .. i then right = right + 1 end
    end
    say(right, servers[tostring(ports[1])], servers[tostring(ports[2])], servers[tostring(ports[3])])
    local keys = {}
    for i = 1, 60 do keys[i] = "m" .. i end
    local found, n = assert(c:get(keys)), 0
    for i = 1, 60 do if found["m" .. i][1] == "v" .. i then n = n + 1 end end
    say("", n)
    found, n = assert(c:gets(keys)), 0
    for i = 1, 60 do if found["m" .. i][1] == "v" .. i and found["m" .. i][3] then n = n + 1 end end
    say("", n)
    local _, flags, cas = c:gets("m1")
    say("", c:cas("m1", "w", cas), (c:cas("m1", "x", cas)), c:replace("m1", 5, 0, 7), c:incr("m1", 4), c:decr("m1", 2), c:append("m1", 0))
    say("", c:prepend("m1", 1), c:add("m1", 1)) say("", c:get("m1")) say("", c:touch("m1", 50), c:delete("m1"), (c:get("m1")))
    say("", (c:gat("m2", 100)), (c:gats("m3", 100)))
    say("", c:meta_get("m4").value, c:meta_set("m5", "w") ~= nil, (c:get("m5"))) say("", c:meta_delete("m5") ~= nil, (c:get("m5")))
    local keys_of_two = c:gat({ "m7", "m8", "m9", "m10", "m11" }, 100)
    say("", keys_of_two.m7[1], keys_of_two.m11[1])
    local results = c:pipeline(function(p) for i = 1, 30 do p:get("m" .. i + 20) end end)
    say("", results[1][1], results[30][1])
    say("", c:server_of("m1") ~= nil, (c:version()) ~= nil, #c:stats() > 60)
};
my $methods_say = '60 true true true 60 60 1 nil 1 9 7 1 1 nil NOT_STORED 170 7 1 1 nil v2 v3 v4 true w true nil v7 v11 v21 v50 true true true';

for my $how ( 'private', 'shared' ) {
    my $multiplex = $how eq 'shared' ? 2 : 'false';
    subtest "methods, $how" => sub {
        is( lua(qq{ local c = new{ server = "three", multiplex = $multiplex } $methods }), $methods_say, 'all' );
        is( lua(qq{
            c = new{ server = "three", multiplex = $multiplex }
            for i = 1, 30 do c:set("k" .. i, i) end
            local before, wrong = opened(), 0
            for i = 1, 30 do if c:get("k" .. i) ~= tostring(i) then wrong = wrong + 1 end end
            local keys = {}
            for i = 1, 30 do keys[i] = "k" .. i end
            for i = 1, 5 do if not c:get(keys).k30 then wrong = wrong + 1 end end
            say(wrong, opened() - before)
        }), '0 3', 'connections are used again' );
        is( lua(q{
            local before, wrong = opened(), 0
            for i = 1, 30 do if c:get("k" .. i) ~= tostring(i) then wrong = wrong + 1 end end
            say(wrong, opened() - before)
        }), '0 3', '... in another request, too' );
        is( lua(qq{
            local threads, wrong = {}, 0
            for i = 1, 100 do
                threads[i] = ngx.thread.spawn(function()
                    for n = 1, 5 do
                        local key = "t" .. i .. ":" .. n
                        if not c:set(key, key) or c:get(key) ~= key then wrong = wrong + 1 end
                    end
                end)
            end
            for i = 1, 100 do ngx.thread.wait(threads[i]) end
            say(wrong)
        }), '0', 'many threads at once' );
        is( lua(qq{
            local key = key_for(c, ports[1], "killed")
            c:set(key, "v")
            for i = 1, 20 do ngx.thread.kill(ngx.thread.spawn(c.get, c, key)) ngx.thread.kill(ngx.thread.spawn(c.get, c, { key, "k1", "k2", "k3" })) end
            say(c:get(key)) say("", c:get("k1"))
        }), 'v 0 1 0', 'threads that are killed' );
        is( lua(qq{
            local raises
            local r = new{ server = "three", multiplex = $multiplex, key_transform = {
                function(key) if raises == "escape" then error("escape", 0) end return key end,
                function(key) if raises == "unescape" then error("unescape", 0) end return key end } }
            local keys = {}
            for i = 1, 30 do keys[i] = "k" .. i end
            local function found()
                local n = 0
                for key, item in pairs(r:get(keys)) do if key == "k" .. item[1] then n = n + 1 end end
                return n
            end
            say(found())
            for i = 1, 3 do
                raises = "escape" say("", pcall(r.get, r, "k7"))
                raises = "unescape" say("", pcall(r.get, r, keys))
                raises = nil say("", found(), (r:get("k7")))
            end
            ngx.thread.spawn(function()
                raises = "unescape" pcall(r.get, r, keys)
                raises = nil
                ngx.sleep(5)
            end)
            ngx.sleep(0.1)
            say("", found())
            ngx.exit(200)
        }), '30' . ' false escape false unescape 30 7' x 3 . ' 30', 'a transform that raises, also in a thread that goes on' );
    };
}

subtest 'a codec' => sub {
    is( lua(q{
        assert(php:set("t", { a = { 1, 2 } })) assert(php:set("n", 5)) assert(php:set("b", true))
        local found = php:get{ "t", "n", "b" }
        say(php:get("t").a[2], found.t[1].a[1], found.n[1], found.b[1])
    }), '2 1 5 true', 'values of all servers' );
};

subtest 'options of connections' => sub {
    is( lua(q{
        local c = new{ server = "stalls", pool_size = 1, backlog = 0, multiplex = false, timeouts = 500 }
        local slow, fast = key_for(c, stalls), key_for(c, ports[1])
        stopped = { slow, fast }
        say(c:set(slow, 1), c:set(fast, 1))
    }), '1 1', 'a client with a pool of one' );
    kill STOP => TestEnv::Memcached::pid($stalls);
    is( lua(q{
        local c = new{ server = "stalls", pool_size = 1, backlog = 0, multiplex = false, timeouts = 500 }
        local slow, fast = unpack(stopped)
        local first, second = ngx.thread.spawn(c.get, c, slow), ngx.thread.spawn(c.get, c, slow)
        say((c:get(fast)))
        local _, v, f, err = ngx.thread.wait(second) say("", err)
        _, v, f, err = ngx.thread.wait(first) say("", err)
    }), '1 too many waiting connect operations timeout', 'is a pool for each server' );
    is( lua(q{
        local slow, fast = unpack(stopped)
        local threads = {}
        for i = 1, 5 do threads[i] = ngx.thread.spawn(stalled.get, stalled, slow) end
        local results, err, errors = stalled:get{ slow, fast }
        say(results[slow], results[fast][1], err, errors["127.0.0.1:" .. stalls], (stalled:get(fast)))
        for i = 1, 5 do local _, v, f, err = ngx.thread.wait(threads[i]) say("", err) end
    }), 'nil 1 timeout timeout 1' . ' timeout' x 5, 'a server that does not answer keeps no other' );
    kill CONT => TestEnv::Memcached::pid($stalls);
    is( lua(q{ local slow = unpack(stopped) for i = 1, 100 do local v = stalled:get(slow) if v then return say(v) end ngx.sleep(0.02) end }), 1, '... and is used again' );
};

subtest 'a server that is not there' => sub {
    is( lua(q{
        local key = key_for(moves, dead)
        say(moves:set(key, "v"), moves:server_of(key) ~= "127.0.0.1:" .. dead, moves:get(key))
    }), '1 true v 0', 'next' );
    is( lua(q{ local key = key_for(off, dead) say(off:incr(key, 1)) say("", off:incr(key, 1)) say("", off:get{ key }) }),
        'nil connection refused nil no live upstreams nil no live upstreams', 'off' );
    my $key = lua(q{ key = key_for(returns, late, "returns") say(returns:set(key, "home")) });
    TestEnv::stop_memcached($late);
    is( lua(q{ say(returns:get(key)) say("", returns:set(key, "next")) say("", returns:get(key)) }), 'nil nil nil 1 next 0', 'a server that goes' );
    TestEnv::start_memcached( port => $late );
    sleep 2.2;
    is( lua(q{ say(returns:set(key, "again"), at(late, key)) }), '1 again', '... and comes back' );
};

subtest 'locations that mean other servers' => sub {
    for my $round ( 1 .. 3 ) {
        like( $nginx->get("/mapped?key=m$round"), qr/\A127\.0\.0\.1:(?:$other|$ports[0]) 1\z/, 'a group' );
        is( $nginx->get("/direct?key=d$round"), 'nil not connected to an upstream 1', 'a server' );
    }
    is( lua(q{
        local c, right = new{ server = "itself" }, 0
        for i = 1, 3 do if at(other, "d" .. i) == "direct" and c:get("m" .. i) == "mapped" then right = right + 1 end end
        say(right)
    }), '3', 'each has its own keys' );
    $nginx->get("/mapped?key=x$_") for 1 .. 40;
    is( lua(q{ local n = 0 for i = 1, 40 do if at(other, "x" .. i) then n = n + 1 end end say(n > 0 and n < 40) }), 'true', '... always' );
};

subtest 'TLS' => sub {
    is( lua(q{
        local c = new{ server = "tls", timeouts = 2000, tls = { server_name = "memcached.test" } }
        local wrong = 0
        for i = 1, 20 do c:set("s" .. i, i) end
        for i = 1, 20 do if c:get("s" .. i) ~= tostring(i) then wrong = wrong + 1 end end
        local keys = {}
        for i = 1, 20 do keys[i] = "s" .. i end
        local before = c:version()
        local found, n = c:get(keys), 0
        for _ in pairs(found) do n = n + 1 end
        say(wrong, n)
    }), '0 20', 'with each server' );
    like( lua(q{ local c = new{ server = "tls", timeouts = 2000, tls = { server_name = "other.test" } } say(c:get("k")) }),
        qr/\Anil nil certificate host mismatch\z/, 'certificates are verified' );
};

subtest 'phases' => sub {
    is( lua(q{ say((three:get("init_worker"))) }), 'timer', 'a timer of init_worker' );
    $nginx->get('/log');
    ok( $nginx->wait_for( sub { logged(qr/TOLD false .*API disabled in the context of log_by_lua/) } ), 'log_by_lua' );
    is( lua(q{ say(three:get("k")) }), '1 0', 'afterwards' );
};

subtest 'many servers' => sub {
    # more than an object remembers
    my $many = join ' ', map { sprintf 'server 127.3.%d.%d:%d max_fails=1 fail_timeout=60s;', $_ / 250, 1 + $_ % 250, $dead } 1 .. 300;
    $nginx->configure( sub { s/(upstream spare )/upstream many { lua_memcached_hash modula; lua_memcached_failover off; $many }\n$1/ } );
    my ($old) = $nginx->workers;
    $nginx->signal('HUP');
    $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 );
    is( lua(q{
        local c, errors = new{ server = "many", multiplex = false }, {}
        for i = 1, 2000 do local _, _, err = c:get("k" .. i) errors[err] = (errors[err] or 0) + 1 end
        say(errors["connection refused"], errors["no live upstreams"])
    }), '300 1700', 'each is tried once' );
};

subtest 'reloads' => sub {
    my $load = $nginx->load( '/load', 3, qr/\Aright/ );
    for my $round ( 1 .. 3 ) {
        my ($old) = $nginx->workers;
        sleep 0.2;
        $nginx->signal('HUP');
        ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), "reload $round: the old worker goes" );
    }
    my ( $right, @wrong ) = $nginx->end_load($load);
    cmp_ok( $right, '>', 20, 'the load was served' );
    is_deeply( \@wrong, [], 'each call was right' );
    is( lua(qq{ say(mapped:server_of("k")) }), "127.0.0.1:$spare", 'before' );
    $nginx->configure( sub { s/(upstream spare\s+\{ server 127\.0\.0\.1:)\d+/$1$ports[2]/ } );
    my ($old) = $nginx->workers;
    $nginx->signal('HUP');
    $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 );
    is( lua(qq{ say(mapped:server_of("k")) }), "127.0.0.1:$ports[2]", 'after' );
};

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
ok( $nginx->quit, 'ends' );
done_testing();
