use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw( sleep );
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;

# Background queues to servers used as one: each write goes to its key's server.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;
my ( $spare, $late ) = map { TestEnv::start_memcached() } 1 .. 2;
my $dead = TestEnv::free_port();
# Accepts, and never answers.
my $silent = IO::Socket::INET->new( Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0 ) or die "listen: $!";
my $mute   = $silent->sockport;

sub servers { return GroupServers::lines(@_) }

my $http = qq{
    upstream three  { zone three 64k; hash \$lua_memcached_key consistent; @{[ servers( 'max_fails=0', @ports ) ]} }
    upstream moves  { zone moves 64k; lua_memcached_hash ketama; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $dead, $ports[1] ) ]} }
    upstream off    { zone off 64k; lua_memcached_hash modula; lua_memcached_failover off; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $dead ) ]} }
    upstream gutter {
        zone gutter 64k; lua_memcached_hash modula; lua_memcached_failover backup exptime=60s;
        @{[ servers( 'max_fails=1 fail_timeout=60s', $dead, $ports[0] ) ]} server 127.0.0.1:$spare backup;
    }
    upstream silent { zone silent 64k; lua_memcached_hash modula; @{[ servers( 'max_fails=2 fail_timeout=60s', $ports[0], $mute ) ]} }
    upstream returns { zone returns 64k; lua_memcached_hash modula; @{[ servers( 'max_fails=1 fail_timeout=1s', $ports[0], $late ) ]} }
    upstream idle   { zone idle 64k; lua_memcached_hash modula; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $late ) ]} }
    upstream path   { lua_memcached_hash modula; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0] ) ]} server unix:/nowhere/memcached.sock; }
    upstream ends   { lua_memcached_hash modula; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $mute ) ]} }
    upstream rr     { @{[ servers( '', @ports ) ]} }
    upstream spare  { server 127.0.0.1:$spare; }
    lua_memcached_upstream cache.test:11211 spare;
    lua_memcached_queue timeout=1s;
    lua_socket_log_errors off;
    @{[ GroupServers::init(qq{
        queue = require "resty.memcached.queue"
        ports, spare, dead, mute, late = { @{[ join ', ', @ports ]} }, $spare, $dead, $mute, $late
        early, nowhere = assert(queue.new("three", { timeout = 10000 })), assert(queue.new("nowhere"))
        unfit, mapped = assert(queue.new("rr")), assert(queue.new("cache.test", 11211))
        function key_for(name, port) return key_of(object(name), port) end
        function at(port, key)
            local m = require "resty.memcached":new()
            m:set_timeout(1000)
            assert(m:connect("127.0.0.1", port))
            return (m:get(key))
        end
        function drained(q)
            return kit.eventually(function() return q:pending() == 0 end, 30)
        end
        function told(q)
            local c = q:counts()
            return ("taken %d done %d unmet %d refused %d lost %d dropped %d full %d"):format(
                c.taken, c.done, c.unmet, c.refused, c.lost, c.dropped, c.full)
        end
    }) ]}
    init_worker_by_lua_block { assert(early:set("init_worker", "init_worker")) }
};
my $server = GroupServers::location() . q{
    location = /phases {
        set_by_lua_block $set { assert(early:set("set", "set")) return "" }
        rewrite_by_lua_block { assert(early:set("rewrite", "rewrite")) }
        access_by_lua_block { assert(early:set("access", "access")) }
        content_by_lua_block {
            ngx.timer.at(0, function() assert(early:set("timer", "timer")) end)
            ngx.say("x")
        }
        header_filter_by_lua_block { assert(early:set("header_filter", "header_filter")) }
        body_filter_by_lua_block { assert(early:set("body_filter", "body_filter")) }
        log_by_lua_block { assert(early:set("log", "log")) }
    }
    location = /balanced { proxy_pass http://balanced; }
    location = /count {
        content_by_lua_block { ngx.print("counted") }
        log_by_lua_block {
            for i = 1, 5 do assert(early:append("count" .. i, ".")) end
        }
    }
};
$http .= q{
    upstream balanced {
        server 0.0.0.1;
        balancer_by_lua_block {
            assert(early:set("balancer", "balancer"))
            assert(require "ngx.balancer".set_current_peer("127.0.0.1", dead))
        }
    }
};
my $nginx = LiveNginx->start( http => $http, server => $server );

sub lua       { return GroupServers::lua( $nginx, @_ ) }
sub log_count { return GroupServers::logged( $nginx, @_ ) }

subtest 'names' => sub {
    is( lua(q{ say(early:set("k", 1)) }), 1, 'a name that is given before there is a block' );
    is( lua(q{ say(nowhere:set("k", 1)) say("", queue.new("nowhere")) }),
        'nil there is no upstream "nowhere" nil there is no upstream "nowhere"', 'no block' );
    like( lua(q{ say(unfit:set("k", 1)) }), qr/\Anil upstream "rr" does not distribute by key/, 'a block without a method' );
    like( lua(q{ say(queue.new("rr")) }),   qr/\Anil upstream "rr" does not distribute by key/, '... at once' );
    is( lua(q{ say(queue.new("127.0.0.1")) say("", queue.new("three", "x")) }),
        'nil bad port: expecting an integer from 1 to 65535, got a nil nil bad port: expecting an integer from 1 to 65535, got "x"',
        'what is no name' );
    is( lua(q{ say(nowhere:pending()) say("", told(nowhere)) }),
        '0 0 taken 0 done 0 unmet 0 refused 0 lost 0 dropped 0 full 0', 'nothing is counted' );
    is( lua(q{ local q = queue.new("THREE", { max_operations = 1 }) q:set("a", 1) say(q:set("a", 2)) drained(q) say("", object("three"):get("a")) }),
        'nil queue full 1 0', 'options, and a name in capitals' );
    is( lua(q{ assert(mapped:set("mapped", "spare")) assert(queue.new("cache.test", 11211, {})) drained(mapped) say(at(spare, "mapped")) }),
        'spare', 'lua_memcached_upstream' );
    is( lua(q{ local q = queue.new("127.0.0.1", ports[1]) say(q:set("direct", 1)) }), 1, 'a port is a server' );
};

subtest 'each key has its server' => sub {
    is( lua(q{
        local before = early:counts()
        local m, right, servers = object("three"), 0, {}
        for i = 1, 60 do assert(early:set("each" .. i, "v" .. i)) end
        local waiting, bytes = early:pending()
        drained(early)
        for i = 1, 60 do
            local port = m:server_of("each" .. i):match(":(%d+)$")
            servers[port] = true
            if at(tonumber(port), "each" .. i) == "v" .. i then right = right + 1 end
        end
        local now = early:counts()
        say(right, servers[tostring(ports[1])], servers[tostring(ports[2])], servers[tostring(ports[3])],
            waiting, bytes > 60 * 10, now.taken - before.taken, now.done - before.done)
    }), '60 true true true 60 true 60 60', 'and counts are those of all servers' );
    is( lua(q{
        for i = 1, 20 do assert(early:set("order" .. i, "")) end
        for n = 1, 30 do for i = 1, 20 do assert(early:append("order" .. i, n .. ";")) end end
        drained(early)
        local m, parts = object("three"), {}
        for n = 1, 30 do parts[n] = n .. ";" end
        local all = table.concat(parts)
        for i = 1, 20 do if m:get("order" .. i) ~= all then return say("order" .. i, m:get("order" .. i)) end end
        say("in order")
    }), 'in order', 'order per key' );
    is( lua(q{
        early:set("all", 5) early:incr("all", 3) early:decr("all", 1) early:prepend("all", "1") early:touch("all", 100)
        early:add("all", 1) early:replace("all", "29") early:append("all", "0") early:set("gone", 1) early:delete("gone")
        drained(early)
        local m = object("three")
        say(m:get("all")) say("", m:get("gone"))
    }), '290 0 nil nil nil', 'all methods' );
};

subtest 'all phases' => sub {
    is( $nginx->get('/phases'), "x\n", 'a request' );
    like( $nginx->get('/balanced'), qr/status 502/, 'a balancer' );
    is( lua(q{
        ngx.sleep(0.05)
        drained(early)
        local m, missing = object("three"), {}
        for _, phase in ipairs { "init_worker", "set", "rewrite", "access", "timer", "header_filter", "body_filter", "balancer", "log" } do
            if m:get(phase) ~= phase then missing[#missing + 1] = phase end
        end
        say(#missing, table.concat(missing, ","))
    }), '0 ', 'have written' );
};

subtest 'a server that is not there: next' => sub {
    is( lua(q{
        local q, key = assert(queue.new("moves")), key_for("moves", dead)
        assert(q:set(key, "waits"))
        local ok = kit.eventually(function() return object("moves"):server_of(key) ~= "127.0.0.1:" .. dead end, 30)
        assert(q:set(key, "moved"))
        drained(q)
        say(ok, object("moves"):get(key)) say("", told(q))
    }), 'true moved 0 taken 2 done 1 unmet 0 refused 0 lost 0 dropped 1 full 0', 'what is written then goes to the next' );
    is( log_count(qr/\[warn\].*upstream server temporarily disabled: "127\.0\.0\.1:$dead" of "moves"/), 1, 'it is told once' );
};

subtest 'a path where nobody listens' => sub {
    is( lua(q{
        local q, m, key = assert(queue.new("path")), object("path"), nil
        for i = 1, 100 do if m:server_of("k" .. i) == "unix:/nowhere/memcached.sock" then key = "k" .. i end end
        assert(q:set(key, "waits"))
        local ok = kit.eventually(function() return m:server_of(key) == "127.0.0.1:" .. ports[1] end, 30)
        assert(q:set(key, "moved"))
        drained(q)
        say(ok, m:get(key)) say("", told(q))
    }), 'true moved 0 taken 2 done 1 unmet 0 refused 0 lost 0 dropped 1 full 0', 'what is written then goes to the next' );
};

subtest 'off' => sub {
    is( lua(q{
        local q, key = assert(queue.new("off")), key_for("off", dead)
        assert(q:set(key, "waits"))
        drained(q)
        say(q:set(key, 1)) say("", q:set(key_for("off", ports[1]), 1)) say("", told(q))
    }), 'nil no live upstreams 1 taken 2 done 0 unmet 0 refused 0 lost 0 dropped 1 full 0', 'its keys are refused, others are not' );
};

subtest 'backup' => sub {
    like( lua(q{
        local q, key = assert(queue.new("gutter")), key_for("gutter", dead)
        assert(q:set(key, "waits"))
        drained(q)
        local s, texts = kit.connect(spare), {}
        local function look()
            drained(q)
            s.sock:send("mg " .. key .. " t" .. string.char(13, 10))
            texts[#texts + 1] = s.sock:receive()
        end
        for _, exptime in ipairs { 0, 3600, 10, ngx.time() + 40 * 86400, -1 } do
            assert(q:set(key, "v", exptime))
            look()
        end
        assert(q:set(key, "v", 10))
        assert(q:touch(key, 3600))
        look()
        assert(q:set(key, "v"))
        look()
        local other = key_for("gutter", ports[1])
        assert(q:set(other, "v", 3600))
        drained(q)
        local home = kit.connect(ports[1])
        home.sock:send("mg " .. other .. " t" .. string.char(13, 10))
        say(table.concat(texts, ","), home.sock:receive())
    }), qr/\AHD t(?:60|59),HD t(?:60|59),HD t(?:10|9),HD t(?:60|59),EN,HD t(?:60|59),HD t(?:60|59) HD t3[56]\d\d\z/,
        'what is stored there soon expires' );
};

subtest 'a server that does not answer' => sub {
    is( lua(q{
        local q, key = assert(queue.new("silent")), key_for("silent", mute)
        local homes = {}
        for i = 1, 3 do
            homes[i] = object("silent"):server_of(key) == "127.0.0.1:" .. mute
            assert(q:set(key, i))
            drained(q)
        end
        say(homes[1], homes[2], homes[3], at(ports[1], key)) say("", told(q))
    }), 'true true false 3 taken 3 done 1 unmet 0 refused 0 lost 2 dropped 0 full 0', 'two lost writes disable it' );
};

subtest 'a server goes and comes back' => sub {
    my $key = lua(q{ say(key_for("returns", late)) });
    is( lua(qq{ local q = queue.new("returns") assert(q:set("$key", "home")) drained(q) say(at(late, "$key")) }), 'home', 'stored' );
    TestEnv::stop_memcached($late);
    is( lua(qq{ local q = queue.new("returns") assert(q:set("$key", "waits")) drained(q) assert(q:set("$key", "next")) drained(q) say(at(ports[1], "$key")) }),
        'next', 'the next server has it' );
    TestEnv::start_memcached( port => $late );
    sleep 2.2;
    is( lua(qq{ say(queue.new("returns"):set("$key", 1, "x")) }), 'nil CLIENT_ERROR bad command line format', 'what is refused is no trial' );
    is( lua(qq{ local q = queue.new("returns") assert(q:set("$key", "again")) drained(q) assert(q:set("$key", "and again")) drained(q) say(at(late, "$key")) }),
        'and again', 'one write tries it, and then it is used' );
    is( log_count(qr/\[info\].*upstream server "127\.0\.0\.1:$late" of "returns" is used again/), 1, '... which is told once' );
};

subtest 'an idle connection that is closed is no failure' => sub {
    my $key = lua(q{ say(key_for("idle", late)) });
    is( lua(qq{ local q = queue.new("idle") assert(q:set("$key", 1)) drained(q) say(at(late, "$key")) }), 1, 'stored' );
    TestEnv::stop_memcached($late);
    TestEnv::start_memcached( port => $late );
    is( lua(qq{ local q = queue.new("idle") assert(q:set("$key", 2)) drained(q) say(at(late, "$key"), object("idle"):server_of("$key")) }),
        "2 127.0.0.1:$late", 'another is opened' );
    is( log_count(qr/temporarily disabled.*"idle"/), 0, 'nothing is counted' );
};

subtest 'reloads' => sub {
    is( lua(q{ local m = object("three") for i = 1, 5 do m:set("count" .. i, "") end say("begin") }), 'begin', 'begin' );
    my $load = $nginx->load( '/count', 3, qr/\Acounted/ );
    for my $round ( 1 .. 4 ) {
        my ($old) = $nginx->workers;
        sleep 0.1;
        $nginx->signal('HUP');
        ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), "reload $round: the old worker goes" );
    }
    my ( $right, @wrong ) = $nginx->end_load($load);
    cmp_ok( $right, '>', 20, 'the load was served' );
    is_deeply( \@wrong, [], 'and each write was taken' );
    my $lengths = sub { lua(q{ local m, n = object("three"), {} for i = 1, 5 do n[i] = #m:get("count" .. i) end say(unpack(n)) }) };
    my $want    = join ' ', ($right) x 5;
    ok( $nginx->wait_for( sub { $lengths->() eq $want } ), 'all writes are seen' ) or diag( $lengths->(), " of $right" );
    $nginx->configure( sub { s/(upstream spare\s+\{ server 127\.0\.0\.1:)\d+/$1$ports[2]/; s/upstream returns/upstream another/ } );
    my ($old) = $nginx->workers;
    $nginx->signal('HUP');
    $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 );
    is( lua(q{ local q = queue.new("spare") assert(q:set("reloaded", 1)) drained(q) say(at(ports[3], "reloaded")) say("", queue.new("returns")) }),
        '1 nil there is no upstream "returns"', 'a block that has changed, and one that is gone' );
};

subtest 'a worker that ends' => sub {
    is( lua(q{ say(queue.new("ends", { timeout = 60000 }):set(key_for("ends", mute), 1)) ngx.sleep(0.2) }), 1, 'a write without a reply' );
    my $lost = sub { log_count(qr/lua memcached queue: lost: 1 write: .*memcached: 127\.0\.0\.1:$mute$/) };
    my ( $pid, $before ) = ( $nginx->pid, $lost->() );
    $nginx->signal('TERM');
    ok( $nginx->wait_for( sub { TestEnv::Child::ended($pid); !$nginx->alive($pid) } ), 'nginx ends' );
    is( $lost->() - $before, 1, 'it is lost' );
    is( log_count(qr/temporarily disabled.*"ends"/), 0, '... which is no failure of the server' );
};

is_deeply( [ $nginx->log_lines(qw( alert emerg )) ], [], 'nothing bad in the log' );
undef $nginx;

subtest 'servers that come and go' => sub {
    my $many = sub {
        my ($net) = @_;
        return join ' ', map { sprintf 'server 127.%d.%d.%d:%d max_fails=0;', $net, $_ / 250, 1 + $_ % 250, $dead } 1 .. 600;
    };
    $nginx = LiveNginx->start(
        connections => 2048,
        http        => $http . qq{
            upstream many    { lua_memcached_hash modula; @{[ $many->(1) ]} }
            upstream others  { lua_memcached_hash modula; @{[ $many->(2) ]} }
        },
        server => $server
    );
    my $write = sub {
        return lua(qq{
            local q, errors = queue.new("$_[0]"), {}
            for i = 1, 6000 do local ok, err = q:set("key" .. i, 1) if not ok then errors[err] = true end end
            drained(q)
            say(q:counts().dropped, next(errors))
        });
    };
    is( $write->('many'),   '6000 nil', 'some servers' );
    is( $write->('others'), '6000 nil', 'others take the places of those' );
    is( lua(q{ say(queue.new("127.0.0.1", ports[1]):set("k", 1)) }), 1, 'there is room for one more' );
};
undef $nginx;

subtest 'one process for all' => sub {
    $nginx = LiveNginx->start( http => $http, server => $server, main => "master_process off;\n" );
    is( lua(q{ assert(early:set("k", "single")) drained(early) say(object("three"):get("k")) }), 'single 0', 'writes' );
    is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
};
undef $nginx;
done_testing();
