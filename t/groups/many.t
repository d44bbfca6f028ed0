use strict;
use warnings;

use lib 't/lib';

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw( sleep );
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;

# get and gets with a list of keys: one command for each server, all sent before any is waited for.

my @ports = map { TestEnv::start_memcached() } 1 .. 5;
my $dead  = TestEnv::free_port();
my $dead2 = TestEnv::free_port();

# A server that answers each get with nothing found, $delay seconds later; never, if that is undefined.
my @children;
END { if (@children) { local $?; kill KILL => @children; waitpid $_, 0 for @children } }

sub slow_server {
    my ( $delay, $answer ) = @_;
    my $listen = IO::Socket::INET->new( Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0 ) or die "listen: $!";
    my $pid = fork // die "fork: $!";
    if ($pid) { push @children, $pid; return $listen->sockport }
    my $watch = IO::Select->new($listen);
    while (1) {
        for my $socket ( $watch->can_read ) {
            if ( $socket == $listen ) { $watch->add( scalar $listen->accept ); next }
            sysread( $socket, my $got, 65536 ) or do { $watch->remove($socket); close $socket; next };
            next if !defined $delay;
            sleep $delay;
            syswrite $socket, $answer // "END\r\n";
        }
    }
    POSIX::_exit(0);
}
my @slow   = map { slow_server(0.3) } 1 .. 5;
my $silent = slow_server();
my @mute   = map { slow_server() } 1 .. 4;
my $wrong  = slow_server( 0, "VALUE not-asked 0 1\r\nx\r\nEND\r\n" );

# A server whose queue of connections is full: nobody connects to it.
my @held;
sub full_server {
    my $listen = IO::Socket::INET->new( Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0 ) or die "listen: $!";
    listen $listen, 0 or die "listen: $!";
    push @held, $listen, map { IO::Socket::INET->new( PeerAddr => '127.0.0.1', PeerPort => $listen->sockport, Blocking => 0 ) } 1 .. 3;
    return $listen->sockport;
}
my @full = map { full_server() } 1 .. 4;

sub servers { my ( $rest, @list ) = @_; return join ' ', map {"server 127.0.0.1:$_ $rest;"} @list }

my $nginx = LiveNginx->start(
    http => qq{
        upstream five   { zone five 64k; hash \$lua_memcached_key consistent; @{[ servers( '', @ports ) ]} }
        upstream ketama { lua_memcached_hash ketama; @{[ servers( '', @ports ) ]} }
        upstream one    { server 127.0.0.1:$ports[0]; }
        upstream slow   { lua_memcached_hash modula; @{[ servers( '', @slow ) ]} }
        upstream next   { lua_memcached_hash ketama; @{[ servers( 'max_fails=3 fail_timeout=60s', @ports[0 .. 2], $dead, $dead2 ) ]} }
        upstream off    { lua_memcached_hash ketama; lua_memcached_failover off; @{[ servers( 'max_fails=0', @ports[0 .. 2], $dead ) ]} }
        upstream none   { lua_memcached_hash ketama; lua_memcached_failover off; @{[ servers( 'max_fails=0', $dead, $dead2 ) ]} }
        upstream mute   { lua_memcached_hash modula; @{[ servers( 'max_fails=100', @mute ) ]} }
        upstream gone   { lua_memcached_hash modula; lua_memcached_failover off; @{[ servers( 'max_fails=1 fail_timeout=60s', @ports[0 .. 2], $dead ) ]} }
        upstream silent { lua_memcached_hash ketama; @{[ servers( 'max_fails=100', @ports[0 .. 2], $silent ) ]} }
        upstream full   { lua_memcached_hash modula; lua_memcached_failover off; @{[ servers( 'max_fails=0', @full ) ]} }
        upstream some_full { lua_memcached_hash modula; @{[ servers( 'max_fails=1 fail_timeout=60s', @full, $ports[0] ) ]} }
        upstream wrong  { lua_memcached_hash ketama; @{[ servers( 'max_fails=100', @ports[0 .. 2], $wrong ) ]} }
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            require "awaykit"
            dead, silent, wrong = "127.0.0.1:$dead", "127.0.0.1:$silent", "127.0.0.1:$wrong"
            ports = { @{[ join ', ', @ports ]} }
            function object(name, read, options)
                local m = require "resty.memcached":new(options)
                m:set_timeouts(1000, 1000, read or 2000)
                assert(m:connect(name))
                return m
            end
            function names(count)
                local keys = {}
                for i = 1, count do keys[i] = "many key " .. i end
                return keys
            end
            -- How many keys have their values, and other things
            function count(results, keys, from)
                local right, all = 0, 0
                for _ in pairs(results) do all = all + 1 end
                for i, key in ipairs(keys) do
                    local item = results[key]
                    if item and item[1] == "v" .. i and item[2] == "0" then right = right + 1 end
                end
                return right == all and right or "wrong"
            end
            function listed(errors)
                local list = {}
                for server, err in pairs(errors or {}) do list[#list + 1] = server .. "=" .. err end
                table.sort(list)
                return table.concat(list, ",")
            end
            function stored(name, keys)
                local m = object(name)
                for i, key in ipairs(keys) do m:set(key, "v" .. i) end
                return m
            end
        }
    },
    server => GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

for my $name (qw( five ketama one )) {
    is( lua(qq{ local k = names(100) local m = stored("$name", k) local r, err, errors = m:get(k) say(count(r, k), err, errors, (m:set_keepalive())) }),
        '100 nil nil 1', "$name: 100 keys" );
    is( lua(qq{ local k = names(20) local m = stored("$name", k) local r = m:gets(k) local n = 0
        for key, item in pairs(r) do if m:cas(key, "w", item[3]) == 1 then n = n + 1 end end say(n) }),
        '20', "$name: gets" );
    is( lua(qq{ local m = stored("$name", names(3)) local r, err = m:get { "many key 1", "not there", "many key 1" } say(r["many key 1"][1], r["not there"], err) }),
        'v1 nil nil', "$name: missing and twice" );
    is( lua(qq{ local m = object("$name", nil, { key_transform = { function(k) return "t-" .. k end, function(k) return k:sub(3) end } })
        for i = 1, 30 do m:set("key" .. i, i) end
        local k = {} for i = 1, 30 do k[i] = "key" .. i end
        local r, err = m:get(k) local n = 0 for i = 1, 30 do if r["key" .. i][1] == tostring(i) then n = n + 1 end end say(n, err) }),
        '30 nil', "$name: another key transform" );
}
is( lua(q{ local m = object("five") local r, err = m:get {} say(next(r), err) }), 'nil nil', 'no keys' );
like( lua(q{ say(object("none"):get { "a", ("k"):rep(251) }) }), qr/\Anil CLIENT_ERROR /, 'a refused key: nobody is asked' );
for my $name (qw( five ketama one next )) {
    is( lua(qq{ local k = names(100) local m = stored("$name", k) local r, err, errors = m:gat(k, 1000) local one = m:meta_get(k[7], { ttl = true })
        say(count(r, k), err, errors, one.ttl > 900, (m:set_keepalive())) }), '100 nil nil true 1', "$name: gat" );
    is( lua(qq{ local k = {} for i = 1, 300 do k[i] = ("k"):rep(150) .. i end local m = stored("$name", k) local r, err = m:gat(k, 1000) local g = m:gats(k, 0)
        say(count(r, k), err, g[k[5]][1], tonumber(g[k[5]][3]) > 0) }), '300 nil v5 true', "$name: gat with many long keys" );
    is( lua(qq{ local m = object("$name", nil, { key_transform = { function(k) return "t-" .. k end, function(k) return k:sub(3) end } })
        local k = {} for i = 1, 30 do k[i] = "key" .. i m:set(k[i], "v" .. i) end say(count(m:gat(k, 100), k)) }), '30', "$name: gat with another transform" );
    is( lua(qq{ local m = object("$name") local r, err, errors = m:gat({ "a", "b" }, "x") say(r, err, errors) r, err, errors = m:gat({ "a" }) say("", r, err, errors) }),
        lua(qq{ local m = object("one") m:connect("127.0.0.1", $ports[0]) local r, err = m:gat({ "a", "b" }, "x") say(r, err, "nil") r, err = m:gat({ "a" }) say("", r, err, "nil") }), "$name: a bad exptime" );
}
for my $keys ( '{ "a", "" }', '{ "" }', '{ "", "b", "a", "" }' ) {
    my $plain = lua(qq{ local m = object("one") m:connect("127.0.0.1", $ports[0]) local r, err = m:get $keys say(r and "table", err) });
    is( lua(qq{ local r, err = object("five"):get $keys say(r and "table", err) }), $plain, "empty keys as with one server: $keys" );
}

my $took = lua(q{ local m = object("slow") ngx.update_time() local t = ngx.now() local r, err = m:get(names(50)) ngx.update_time()
    say(err, next(r), m:get_reused_times(), "") say(ngx.now() - t) });
my ( $said, $seconds ) = ( $took // '' ) =~ /\A(.*) (\S+)\z/;
is( $said, 'nil nil 0', 'five servers that need 0.3 s each answer' );
cmp_ok( $seconds // 99, '<', 0.9, '... at the same time' );
cmp_ok( $seconds // 0,  '>=', 0.25, '... and not before' );

is( lua(q{ local k = names(100) local m = object("next") local r, err = m:get(k) local mine = stored("next", k)
    r, err = mine:get(k) say(count(r, k), err) }), '100 nil', 'keys of servers that are away go to the next' );
is( lua(q{ local k = names(100) local m = stored("off", k) local r, err, errors = m:get(k)
    say(count(r, k) > 20, count(r, k) < 100, err, listed(errors) == dead .. "=connection refused") }),
    'true true connection refused true', 'failover off: partial results, and whose are missing' );
is( lua(q{ local k = names(100) local m = stored("off", k) local r, err, errors = m:gat(k, 10)
    say(count(r, k) > 20, count(r, k) < 100, err, listed(errors) == dead .. "=connection refused") }),
    'true true connection refused true', '... with gat' );
is( lua(q{ local r, err, errors = object("none"):gat(names(50), 10) say(r, err) }), 'nil connection refused', 'nobody answers to gat' );
is( lua(q{ local r, err, errors = object("none"):get(names(50)) say(r, err) }), 'nil connection refused', 'nobody answers' );
is( lua(q{ local k = names(100) local m = stored("silent", {}) local home = object("silent")
    for i, key in ipairs(k) do if home:server_of(key) ~= silent then home:set(key, "v" .. i) end end
    m:set_timeouts(1000, 1000, 200)
    ngx.update_time() local t = ngx.now() local r, err, errors = m:get(k) ngx.update_time()
    local after = m:get("many key 1")
    say(count(r, k) > 20, err, listed(errors) == silent .. "=timeout", ngx.now() - t < 1) }),
    'true timeout true true', 'one does not answer in time' );
is( lua(q{ local m = object("mute") m:set_timeouts(1000, 1000, 500)
    ngx.update_time() local t = ngx.now() local r, err, errors = m:get(names(100)) ngx.update_time() local n = 0
    for _, why in pairs(errors) do n = n + (why == "timeout" and 1 or 0) end
    say(r, err, n, ngx.now() - t < 1.4) }),
    'nil timeout 4 true', 'four do not answer in time, which is one time for all' );
is( lua(q{ local k = names(100) local m = stored("gone", k) local r, err, errors = m:get(k)
    say(count(r, k) > 20, count(r, k) < 100, err, type(errors), next(errors)) }),
    'true true no live upstreams table nil', 'keys without a server are no error of one' );
like( lua(q{ local k = names(100) local home = object("wrong")
    for i, key in ipairs(k) do if home:server_of(key) ~= wrong then home:set(key, "v" .. i) end end
    local r, err, errors = home:get(k) say(count(r, k) > 20, listed(errors):sub(1, #wrong + 11), err) }),
    qr/\Atrue 127\.0\.0\.1:$wrong=bad reply: bad reply: /, 'one answers what nobody has asked for' );
for my $how ( 'm:get(names(50))', '(function() m:init_pipeline() for _, key in ipairs(names(50)) do m:get(key) end return m:commit_pipeline() end)()' ) {
    is( lua(qq{ local m = object("full") m:set_timeouts(700, 1000, 1000) ngx.update_time() local t = ngx.now() local r, err = $how
        ngx.update_time() local took = ngx.now() - t say(r, err, took > 0.6, took < 2.2) }), 'nil timeout true true', 'four that cannot be connected to: at the same time' );
}
is( lua(q{ local k = names(50) local m = object("some_full") m:set_timeouts(700, 1000, 1000) ngx.update_time() local t = ngx.now() m:init_pipeline()
    for i, key in ipairs(k) do m:set(key, "v" .. i) end local r = m:commit_pipeline() ngx.update_time() local took = ngx.now() - t
    local found, err = m:get(k) say(#r, r[1][1], r[50][1], took < 2.2, count(found, k), err) }), '50 1 1 true 50 nil', '... and their keys go to the next' );
is( lua(q{ local m = object("full") m:set_timeouts(2000, 1000, 1000)
    local t = ngx.thread.spawn(m.get, m, names(50)) ngx.sleep(0.05)
    local r, err = m:get(names(50)) ngx.thread.kill(t)
    m:set_timeouts(200, 1000, 1000) local r2, err2 = m:get(names(50))
    say(r, err, r2, err2, m:close()) }), 'nil socket busy connecting nil timeout 1', 'a thread that is killed while several are being opened' );
is( lua(q{
    local m = object("silent", 300)
    local t = ngx.thread.spawn(m.get, m, names(50))
    ngx.sleep(0.02)
    ngx.thread.kill(t)
    ngx.sleep(0.4)
    local k = names(100)
    local r, err, errors = m:get(k)
    say(err, listed(errors) == silent .. "=timeout") }),
    'timeout true', 'a killed thread: the object can be used again' );
is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
undef $nginx;
done_testing();
