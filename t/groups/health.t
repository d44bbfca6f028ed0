use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LineServer;
use LiveNginx;
use Preload;

# Who counts failures, and who heeds them: all workers and memcached_pass where there is a zone; what is
# set from outside.

my @ports = map { TestEnv::start_memcached() } 1 .. 5;
my %dead  = map { $_ => TestEnv::free_port() } qw( zoned own two trial killed off all gone );
my $rest  = 'max_fails=1 fail_timeout=60s';

# It closes the connection upon some keys, and says nothing about others.
my @lines = map {
    LineServer->start( sub { my ($line) = @_; return $line =~ /close/ ? undef : $line =~ /silent/ ? q{} : "OK\r\n" } )
} 1 .. 2;

sub five { my ( $dead, $how ) = @_; return GroupServers::lines( $how // $rest, $ports[0], $dead, @ports[ 1 .. 3 ] ) }

my $nginx = Preload::with( peerdown => sub { LiveNginx->start(
    main => "worker_processes 3;\n",
    http => qq{
        upstream zoned  { zone zoned 64k; hash \$lua_memcached_key consistent; @{[ five( $dead{zoned} ) ]} }
        upstream own    { hash \$lua_memcached_key consistent; @{[ five( $dead{own} ) ]} }
        upstream two    { zone two 64k; hash \$memcached_key consistent; @{[ five( $dead{two}, 'max_fails=2 fail_timeout=60s' ) ]} }
        upstream trial  { zone trial 64k; lua_memcached_hash ketama; @{[ five( $dead{trial} ) ]} }
        upstream killed { zone killed 64k; lua_memcached_hash ketama; @{[ five( $dead{killed} ) ]} }
        upstream off    { zone off 64k; lua_memcached_hash modula; lua_memcached_failover off; @{[ five( $dead{off} ) ]} }
        upstream all    { zone all 64k; lua_memcached_hash modula; @{[ GroupServers::lines( $rest, @dead{qw( all gone )} ) ]} }
        upstream every  { zone every 64k; lua_memcached_hash modula; @{[ GroupServers::lines( $rest, map { $_->port } @lines ) ]} }
        upstream told   { zone told 64k; hash \$memcached_key consistent; @{[ GroupServers::lines( $rest, @ports ) ]} }
        @{[ GroupServers::init('ffi = require "ffi" ffi.cdef[[
            int peerdown(const char *upstream, const char *server, int down);
            int peerpast(const char *upstream, const char *server, int seconds);
        ]]') ]}
    },
    server => GroupServers::location() . q{
        location = /pid { content_by_lua_block { ngx.print(ngx.worker.pid()) } }
        location /two/  { set $memcached_key $uri; memcached_pass two; memcached_next_upstream off; }
        location /told/ { set $memcached_key $uri; memcached_pass told; error_page 404 =200 /addr; }
        location /addr  { internal; return 200 $upstream_addr; }
    },
) } );

sub lua    { return GroupServers::lua( $nginx, @_ ) }
sub logged { return GroupServers::logged( $nginx, @_ ) }

# As if fail_timeout had passed since this server failed.
sub wait_for_trial {
    my ( $name, $port ) = @_;
    return is( lua(qq{ say(ffi.C.peerpast("$name", "127.0.0.1:$port", 61)) }), 1, '(fail_timeout is over)' );
}

# Runs the code in every worker: what it printed, by worker.
sub everywhere {
    my ($code) = @_;
    my %said;
    for ( 1 .. 400 ) {
        last if keys %said == 3;
        my ( $pid, $text ) = split / /, lua("ngx.print(ngx.worker.pid(), ' ') $code"), 2;
        $said{$pid} //= $text;
    }
    is( scalar keys %said, 3, 'all workers were asked' );
    return map { $said{$_} } sort keys %said;
}

subtest 'a zone: what one worker knows, all know' => sub {
    my @said = everywhere(qq{ local m = object("zoned") local k = key_of(m, $dead{zoned}) say(k ~= nil and m:set(k, 1)) m:close() });
    is( scalar( grep { $_ eq '1' } @said ), 1, 'one worker has found it out' ) or diag("@said");
    is( logged(qr/connect\(\) failed .*:$dead{zoned}\b/), 1, 'nobody else connects' );
    is( logged(qr/temporarily disabled.*"zoned"/), 1, 'one line of nginx' );
    my $listener = GroupServers->note( port => $dead{zoned} );
    everywhere(q{ local m = object("zoned") for i = 1, 100 do m:get("k" .. i) end say(m:close()) });
    is_deeply( [ $listener->notes ], [], 'within fail_timeout nobody connects, though it is there again' );
};

subtest 'no zone: each worker for itself' => sub {
    my @said = everywhere(qq{ local m = object("own") for i = 1, 200 do m:get("k" .. i) end say(m:close()) });
    is( "@said", '1 1 1', 'all of them use it' );
    is( logged(qr/connect\(\) failed .*:$dead{own}\b/), 3, 'each worker connects once' );
    is( logged(qr/temporarily disabled.*"own"/), 3, 'a line of each worker' );
};

subtest 'failures of Lua and of memcached_pass are one number' => sub {
    my $key = lua(qq{ say(key_of(object("two"), $dead{two}, "/two/")) });
    is( lua(qq{ local m = object("two") say(m:set("$key", 1), m:server_of("$key") == "127.0.0.1:$dead{two}") }), '1 true', 'one failure of Lua does not disable it' );
    is( logged(qr/temporarily disabled.*"?two"?/), 0, '... and none is told' );
    is( $nginx->get($key), 'status 502', 'memcached_pass still tries it' );
    is( lua(qq{ say(object("two"):server_of("$key") == "127.0.0.1:$dead{two}") }), 'false', 'the second, of memcached_pass, does' );
    my $before = logged(qr/connect\(\) failed/);
    is( lua(qq{ say(object("two"):get("$key")) }), '1 0', 'Lua reads where it has written, ' );
    is( $nginx->get($key), '1', 'so does memcached_pass' );
    is( logged(qr/connect\(\) failed/), $before, '... and nobody connects' );
};

subtest 'after fail_timeout one trial, of all workers together' => sub {
    my ( $key, $is_set ) = split / /, lua(qq{ local m = object("trial") local k = key_of(m, $dead{trial}) say(k, m:set(k, 1)) });
    is( $is_set, 1, 'disabled' );
    # it accepts, and answers nothing
    my $server = GroupServers->note( port => $dead{trial}, silent => 1 );
    wait_for_trial( trial => $dead{trial} );
    my @said = GroupServers::together( $nginx, 9, qq{
        local threads, late = {}, 0
        for t = 1, 10 do
            threads[t] = ngx.thread.spawn(function()
                local m, late = object("trial", 2000), 0
                for i = 1, 10 do
                    local _, _, err = m:get(i == t and "$key" or "trial" .. i)
                    if err then late = late + (err == "timeout" and 1 or 100) end
                end
                m:close()
                return late
            end)
        end
        for t = 1, 10 do
            local ok, n = ngx.thread.wait(threads[t])
            late = late + n
        end
        ngx.print(late)
    } );
    is( join( ' ', sort @said ), '0 0 0 0 0 0 0 0 1', 'one of 900 commands has waited for it' );
    is( $server->connects, 1, 'one connection' );
    is( scalar $server->commands, 1, 'one command' );
    is( logged(qr/temporarily disabled.*"trial"/), 2, 'told again, because it has failed again' );
    $server->stop;
    TestEnv::start_memcached( port => $dead{trial} );
    wait_for_trial( trial => $dead{trial} );
    is( lua(qq{ local m = object("trial") m:get("$key") say(m:server_of("$key")) }), "127.0.0.1:$dead{trial}", 'it answers: it has its keys again' );
    is( logged(qr/is used again.*"trial"|of "trial" is used again/), 1, '... which is told' );
};

subtest 'a trial without a result is given back' => sub {
    my $key = lua(qq{ local m = object("killed") local k = key_of(m, $dead{killed}) m:set(k, 1) say(k) });
    is( lua(qq{ say(object("killed"):server_of("$key") ~= "127.0.0.1:$dead{killed}") }), 'true', 'disabled' );
    my $server = GroupServers->note( port => $dead{killed}, silent => 1 );
    wait_for_trial( killed => $dead{killed} );
    # its thread is killed when the server has got the command, or the request ends
    for my $how (
        [ 'a command',   qq{ m:get("$key") } ],
        [ 'a write',     qq{ m:incr("$key", 1) } ],
        [ 'a list',      qq{ m:get{ "$key", "home1", "home2", "home3" } } ],
        [ 'a pipeline',  qq{ m:init_pipeline() m:get("home1") m:get("$key") m:commit_pipeline() } ],
        [ 'a handshake', qq{ m:sslhandshake(false, "x", false) m:get("$key") }, 'connect' ],
        [ 'a request',   qq{ m:get("$key") }, 'get', 'ngx.exit(200)' ],
        )
    {
        my ( $name, $code, $word, $end ) = @$how;
        $server->forget;
        my $ends   = $end  // 'ngx.thread.kill(t)';
        my $wanted = $word // ( $name eq 'a write' ? 'incr' : 'get' );
        my ( $notes, $old ) = $server->file;
        my $said = lua(qq{
            local m, done = object("killed", 20000), false
            local t = ngx.thread.spawn(function() $code done = true end)
            for i = 1, 1000 do
                ngx.sleep(0.01)
                local file = io.open("$notes")
                file:seek("set", $old)
                local text = file:read("*a")
                file:close()
                if text:find("$wanted") then
                    ngx.print(done and "done" or "tried")
                    break
                end
            end
            $ends
        });
        is( $said, 'tried', "$name: the server is tried" );
        ok( $nginx->wait_for( sub { lua(qq{ say(object("killed"):server_of("$key") == "127.0.0.1:$dead{killed}") }) eq 'true' } ),
            '... and is to be tried again' );
    }
    # what is refused before it is sent is no trial, nor does it tell anything of the server
    $server->forget;
    is( lua(qq{ say(object("killed"):set("$key", 1, "x")) }), 'nil CLIENT_ERROR bad command line format', 'a command that is refused' );
    is( scalar $server->commands, 0, '... is not sent' );
    is( lua(qq{ say(object("killed"):server_of("$key") == "127.0.0.1:$dead{killed}") }), 'true', '... and the server is to be tried' );
    is( logged(qr/of "killed" is used again/), 0, '... because it is not used again' );
    is( lua(qq{ say(object("killed", 200):get("$key")) }), 'nil nil timeout', 'a trial that fails' );
    is( lua(qq{ say(object("killed"):server_of("$key") == "127.0.0.1:$dead{killed}") }), 'false', '... is the last one' );
};

subtest 'off' => sub {
    my $key = lua(qq{ say(key_of(object("off"), $dead{off})) });
    is( lua(qq{ say(object("off"):incr("$key", 1)) }), 'nil connection refused', 'found out' );
    my $server = GroupServers->note( port => $dead{off} );
    my @said = everywhere(qq{ local m, k = object("off"), "$key"
        say(within(900, m.incr, m, k, 1)) say("", m:set(k, 1)) say("", m:get(k)) say("", m:delete(k)) });
    is( $_, 'quick nil no live upstreams nil nil nil no live upstreams nil nil no live upstreams nil no live upstreams', 'its keys fail at once' ) for @said;
    is_deeply( [ $server->notes ], [], 'nothing is tried' );
    is( lua(qq{ local m = object("off") local n = 0 for i = 1, 100 do local k = "k" .. i if m:server_of(k) and m:set(k, 1) ~= 1 then n = n + 1 end end say(n) }),
        '0', 'keys of others are not concerned' );
};

subtest 'a command for all servers that is answered during a trial' => sub {
    my $port = $lines[0]->port;
    is( lua(qq{ local m = object("every") say(m:get(key_of(m, $port, "close"))) }), 'nil nil closed', 'a failure' );
    wait_for_trial( every => $port );
    is( lua(qq{
        local one, other = object("every", 1500), object("every")
        local key = key_of(one, $port, "silent")
        local trial = ngx.thread.spawn(function() return select(3, one:get(key)) end)
        local meanwhile = other:server_of(key) == "127.0.0.1:$port"
        local ok, err = other:flush_all()
        say(meanwhile, ok, err, other:server_of(key) == "127.0.0.1:$port", select(2, ngx.thread.wait(trial)))
    }), 'false 1 nil true timeout', 'has the server used again at once' );
    is( logged(qr/of "every" is used again/), 1, '... which is told' );
};

subtest 'all are away' => sub {
    is( lua(q{ say(object("all"):get("k")) }), 'nil nil connection refused', 'found out' );
    my $tried = logged(qr/connect\(\) failed .*:(?:$dead{all}|$dead{gone})\b/);
    is( $tried, 2, '... by trying both' );
    is( lua(q{ local m = object("all") say(m:get("k")) say("", m:set("k", 1)) say("", m:incr("k", 1)) }),
        'nil nil no live upstreams nil no live upstreams nil no live upstreams', 'then nobody is asked' );
    is( logged(qr/connect\(\) failed .*:(?:$dead{all}|$dead{gone})\b/), $tried, '... really' );
    wait_for_trial( all => $dead{$_} ) for qw( all gone );
    is( lua(q{ say(object("all"):get("k")) }), 'nil nil connection refused', 'until fail_timeout is over' );
    is( lua(q{ say(object("all"):get("k")) }), 'nil nil no live upstreams', '... once' );
};

subtest 'set_peer_down' => sub {
    my $server = "127.0.0.1:$ports[2]";
    my $key = lua(qq{ local m = object("told") local k = key_of(m, $ports[2], "/told/") say(m:set(k, "home") == 1 and k) });
    is( $nginx->get($key), 'home', 'memcached_pass finds it at home' );
    is( lua(qq{
        local kept = object("told") local key = "$key"
        local _, homes = moved(kept, $ports[2])
        local found = ffi.C.peerdown("told", "$server", 1)
        local there, value = kept:server_of(key), kept:get(key)
        local others = moved(kept, $ports[2], homes)
        say(found, there ~= "$server", value, others, kept:set(key, "elsewhere"))
    }), '1 true nil 0 1', 'the next command of the same object heeds it; other keys do not move' );
    is_deeply( [ everywhere(qq{ say(object("told"):server_of("$key") == "$server") }) ], [ ('false') x 3 ], 'all workers heed it' );
    is( $nginx->get($key), 'elsewhere', 'memcached_pass agrees where the key is meanwhile' );
    is( lua(qq{ ffi.C.peerdown("told", "$server", 0) local m = object("told") say(m:server_of("$key") == "$server", (m:get("$key"))) }),
        'true home', 'and it comes back' );
    is( logged(qr/"told"/), 0, 'nothing of it is told: it has not failed' );
};

subtest 'servers that are stopped and continued' => sub {
    my $port = $ports[1];
    my $key  = lua(qq{ local m = object("told") local k = key_of(m, $port, "stopped") say(m:set(k, 7) == 1 and k) });
    kill STOP => TestEnv::Memcached::pid($port);
    is( lua(qq{ local m = object("told", 1000) say(m:incr("$key", 1)) say("", within(900, m.set, m, key_of(m, $ports[0]), 1)) }),
        'nil timeout quick 1 nil nil nil', 'a timeout, and other servers answer at once' );
    is( logged(qr/temporarily disabled.*"told"/), 1, 'it counts' );
    is( lua(qq{ say(object("told"):server_of("$key") == "127.0.0.1:$port") }), 'false', 'its keys are elsewhere' );
    kill CONT => TestEnv::Memcached::pid($port);
    my $value = lua(qq{
        local s, value = require "resty.memcached":new(), nil
        s:connect("127.0.0.1", $port)
        for i = 1, 500 do
            value = s:get("$key")
            if value ~= "7" then break end
            ngx.sleep(0.01)
        end
        ngx.sleep(0.2)
        say(value, (s:get("$key")))
    });
    is( $value, '8 8', 'its late answer has not made anybody repeat it' );
};

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
