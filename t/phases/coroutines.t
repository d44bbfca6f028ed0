use strict;
use warnings;
use lib 't/lib';

use IO::Select ();
use Test::More;
use Time::HiRes qw( sleep time );

use TestEnv;
use DnsServer;
use LateServer;
use LiveNginx;

# A coroutine of each kind waits for memcached, in each state of a connection, and ends in each way.
# The worker lives on, nobody gets another's answer, and what has ended does not go on.

plan skip_all => 'the reference resumes threads that are gone' if $ENV{TEST_NGINX_REFERENCE_LIB};

my %port = LateServer::start();
my $dns = DnsServer::start();

# ahead of the case's own: what is bounded to one operation is queued in shared mode
my $bounded = $ENV{TEST_NGINX_MULTIPLEX} ? 'lua_memcached_multiplex 1 max_operations=1;' : '';

my $nginx = LiveNginx->start(
    whole => 'it is about when a server answers',
    main  => "worker_processes 1;\n",
    connections => 2048,
    http  => qq{
        lua_socket_log_errors off;
        lua_http10_buffering off;
        resolver 127.0.0.1:$dns ipv6=off;
        resolver_timeout 1s;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            coro = require "corokit"
            coro.ports = { slow = $port{slow}, silent = $port{silent}, full = $port{full} }
            logged, kept = {}, {}
        }
        init_worker_by_lua_block {
            -- this phase cannot wait, whatever the coroutine
            local m = require "resty.memcached"
            started = { pcall(m.new, m) }
            local own = coroutine._wrap(function()
                return pcall(function() return m:new() end)
            end)
            started_own = { own() }
        }
    },
    server => qq{
        location = /case {
            lua_check_client_abort on;
            content_by_lua_block { coro.run(ngx.req.get_uri_args(), ngx.say) }
        }
        location = /bounded {
            $bounded
            lua_check_client_abort on;
            content_by_lua_block { coro.run(ngx.req.get_uri_args(), ngx.say) }
        }
        location = /access {
            access_by_lua_block { coro.run(ngx.req.get_uri_args(), function() end) }
            content_by_lua_block {
                -- what access has left behind must not take this for itself
                ngx.sleep(0.05)
                local n = coroutine.wrap(function() ngx.sleep(0.05) return 7 end)()
                ngx.say("content ", n)
            }
        }
        location = /timer { content_by_lua_block { ngx.say(coro.timer(ngx.req.get_uri_args())) } }
        location = /exec { content_by_lua_block { ngx.sleep(0.05) ngx.say("exec") } }
        location = /works { content_by_lua_block { ngx.say(coro.works($ENV{TEST_NGINX_MEMCACHED_PORT})) } }
        location = /gone_on { content_by_lua_block { ngx.print(coro.gone_on()) } }
        location = /started { content_by_lua_block {
            ngx.say(tostring(started[1]), " ", tostring(started[2]))
            ngx.say(tostring(started_own[1]), " ", tostring(started_own[2]))
        } }
        # coroutines that filters and logs have made, or run: Lua's own
        location = /filter {
            content_by_lua_block {
                local memcached = require "resty.memcached"
                local function conn()
                    local m = memcached:new()
                    m:set_timeout(500)
                    assert(m:connect("127.0.0.1", $ENV{TEST_NGINX_MEMCACHED_PORT}))
                    return m
                end
                local a, b = conn(), conn()
                assert(a:set("fa", "A"))
                assert(b:set("fb", "B"))
                ngx.ctx.a, ngx.ctx.in_filter = a, {}
                ngx.say("x")
                ngx.flush(true)
                for _, how in ipairs{ "get", "gets", "list", "set", "version", "pipeline", "connect", "raw" } do
                    ngx.say(how, ": ", select(2, pcall(ngx.ctx.gens[how])))
                end
                ngx.say("in the filter: ", ngx.ctx.in_filter.said)
                ngx.say("b: ", (b:get("fb")))
                ngx.say("a: ", (a:get("fa")))
            }
            header_filter_by_lua_block {
                local a = ngx.ctx.a
                if not a then return end
                local function gen(f)
                    return coroutine.wrap(function()
                        local r = { f() }
                        return tostring(r[1] or r[#r])
                    end)
                end
                ngx.ctx.gens = {
                    get = gen(function() return nil, select(3, a:get("fa")) end),
                    gets = gen(function() return nil, select(4, a:gets("fa")) end),
                    list = gen(function() return nil, (select(2, a:get{ "fa", "fb" })) end),
                    set = gen(function() return a:set("fa", "other") end),
                    version = gen(function() return nil, (select(2, a:version())) end),
                    pipeline = gen(function()
                        a:init_pipeline()
                        a:set("fa", "other")
                        return a:commit_pipeline()
                    end),
                    connect = gen(function()
                        local m = require "resty.memcached":new()
                        return m:connect("127.0.0.1", $port{full})
                    end),
                    raw = gen(function() return a.sock:receive() end),
                }
                ngx.ctx.in_filter.said = gen(function() return nil, select(3, a:get("fa")) end)()
            }
        }
        location = /log {
            content_by_lua_block {
                local m = require "resty.memcached":new()
                assert(m:connect("127.0.0.1", $ENV{TEST_NGINX_MEMCACHED_PORT}))
                assert(m:set("k", "v"))
                assert(m:set_keepalive())
                ngx.ctx.m = m
                -- one of ngx_lua's, suspended by the exit of the request
                ngx.ctx.co = coroutine.create(function()
                    ngx.exit(200)
                    local m = ngx.ctx.m
                    local r = { pcall(m.connect, m, "127.0.0.1", $ENV{TEST_NGINX_MEMCACHED_PORT}) }
                    logged[#logged + 1] = "ngx_lua's: " .. tostring(r[1]) .. " " .. tostring(r[2])
                end)
                ngx.say("x")
                coroutine.resume(ngx.ctx.co)
            }
            header_filter_by_lua_block {
                local m = ngx.ctx.m
                ngx.ctx.logger = coroutine.wrap(function()
                    local r = { pcall(m.connect, m, "127.0.0.1", $ENV{TEST_NGINX_MEMCACHED_PORT}) }
                    logged[#logged + 1] = "Lua's own: " .. tostring(r[1]) .. " " .. tostring(r[2])
                    kept.m = m
                end)
            }
            log_by_lua_block {
                ngx.ctx.logger()
                local r = { coroutine._resume(ngx.ctx.co) }
                if not r[1] then logged[#logged + 1] = tostring(r[2]) end
            }
        }
        location = /logged {
            content_by_lua_block {
                kept.m = nil
                collectgarbage()
                collectgarbage()
                for _, line in ipairs(logged) do ngx.say((line:gsub("[^ ]+:%d+: ", ""))) end
            }
        }
    },
);
my ($worker) = $nginx->workers;

# All at once: each is a request of its own. Returns the bodies by name.
sub ask {
    my @cases = @_;
    my ( %answer, %client );
    my $select = IO::Select->new;
    for my $case (@cases) {
        my $socket = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port, Timeout => 5 )
            or next;
        my $query = join '&', map {"$_=$case->{$_}"} grep { $_ ne 'path' } sort keys %$case;
        print {$socket} "GET $case->{path}?$query HTTP/1.0\r\nHost: localhost\r\n\r\n";
        $client{$socket} = $case;
        $answer{ $case->{name} } = '';
        $select->add($socket);
    }
    my $started = time;
    while ( $select->count && time - $started < 20 ) {
        for my $socket ( $select->handles ) {
            next if $client{$socket}{how} ne 'abort' || time - $started < 0.012;
            $select->remove($socket);
            close $socket;
        }
        for my $socket ( $select->can_read(0.01) ) {
            my $name = $client{$socket}{name};
            next if sysread $socket, $answer{$name}, 65536, length $answer{$name};
            $select->remove($socket);
            close $socket;
        }
    }
    return map { ( $_ => body( $answer{$_} ) ) } keys %answer;
}

sub body {
    my ($text) = @_;
    my ( $code, $body ) = $text =~ m{\AHTTP/1\.1 (\d+).*?\r\n\r\n(.*)\z}s or return '';
    chomp $body;
    return $code == 200 ? $body : "status $code";
}

my @kinds = qw( thread wrap create wrap_in_wrap generator thread_in_wrap own
    entry entry_wrap entry_wrap_in_wrap );
my @states = qw( reading list pipeline raw connecting resolving handshake queued );
my @ends   = qw( answer timeout kill kill_gc exit exec error abort finish );

my $unknown = 'cannot wait in this coroutine: ngx_lua does not know it';

# What the coroutine that waits is told, if nothing ends it before.
sub result {
    my ( $kind, $state, $how ) = @_;
    return qr/\A\Q$unknown\E\z/ if $kind eq 'own' && $state ne 'raw';
    # here the raw data is sent, which needs no waiting
    return qr/\A\Q$unknown\E\z/ if $kind eq 'own';
    my $answers = $state =~ /\A(?:reading|list|pipeline|raw)\z/ && $how ne 'timeout';
    # 30 ms are enough for a server that takes 20, if not for a busy machine
    return qr/\A(?:v|timeout)\z/ if $state =~ /\A(?:reading|list|pipeline|raw)\z/ && !$answers;
    return qr/\Av\z/ if $answers;
    return qr/\A(?:timeout|x\.never\.test could not be resolved.*)\z/;
}

sub expected {
    my ($case) = @_;
    my ( $kind, $how, $state ) = @{$case}{qw( kind how state )};
    my $own = $kind eq 'own';
    return qr/\Aexit\z/ if $how eq 'exit' && !$own;
    return qr/\Aexec\z/ if $how eq 'exec';
    return qr/\Aerror\z/ if $how eq 'error' && !$own;
    return qr/\A(?:|v|timeout|ended|\Q$unknown\E)\z/ if $how eq 'abort';
    return result( $kind, $state, $how ) if $how eq 'answer' || $how eq 'timeout';
    return qr/\A(?:exit|error|ended)\z/ if $own;
    return qr/\Aended\z/;
}

sub cases {
    my ( $path, $skip, $only ) = @_;
    my @cases;
    for my $state (@states) {
        for my $kind (@kinds) {
            for my $how (@ends) {
                my $case = { path => $path, kind => $kind, how => $how, state => $state };
                next if $only && !$only->($case) || $skip->($case);
                $case->{name} = "$path-$kind-$how-$state" =~ tr{/}{}dr;
                push @cases, $case;
            }
        }
    }
    return @cases;
}

# An entry thread cannot be killed, and the request is not over before it; one of Lua's own has
# ended before. When a thread is killed, ngx_lua lets threads go on that coroutines in it have
# spawned, and then the killed one: that is so without memcached, too.
sub makes_no_sense {
    my ($case) = @_;
    return 1 if $case->{kind} eq 'thread_in_wrap' && $case->{how} =~ /\Akill/;
    return 1 if $case->{kind} =~ /^entry/ && $case->{how} =~ /\A(?:kill|kill_gc|finish|error)\z/;
    return 1 if $case->{kind} eq 'own' && $case->{how} =~ /\Akill/;
    return 0;
}

sub run {
    my ( $title, @cases ) = @_;
    my @wrong;
    while ( my @batch = splice @cases, 0, 60 ) {
        my %got = ask(@batch);
        for my $case (@batch) {
            my ( $got, $want ) = ( $got{ $case->{name} } // '(no answer)', expected($case) );
            push @wrong, "$case->{name}: $got" if $got !~ $want;
        }
        my $works = $nginx->get('/works') // 'no answer';
        push @wrong, "after $batch[0]{name} …: $works" if $works ne "works\n";
    }
    is( join( "\n", @wrong ), '', $title );
    return;
}

for my $state (@states) {
    my $only = sub { $_[0]{state} eq $state };
    my $path = $state eq 'queued' ? '/bounded' : '/case';
    run( "requests: $state", cases( $path, \&makes_no_sense, $only ) );
}

# A timer cannot be left by exec, and nobody aborts it; what it says comes late.
{
    my $skip = sub { makes_no_sense( $_[0] ) || $_[0]{how} =~ /\A(?:exit|exec|error|abort|timeout)\z/ };
    my @cases = grep { $_->{state} =~ /\A(?:reading|list|handshake)\z/ } cases( '/timer', $skip );
    my @wrong;
    my %got = ask(@cases);
    for my $case (@cases) {
        my $want = expected($case);
        # what is still waited for when the request asks is not told yet
        $want = qr/$want|\Anil\z/ if $case->{state} eq 'handshake';
        push @wrong, "$case->{name}: $got{$case->{name}}" if $got{ $case->{name} } !~ $want;
    }
    is( join( "\n", @wrong ), '', 'timers' );
    is( $nginx->get('/works'), "works\n", 'it works behind them' );
}

# ngx.exit(ngx.OK) in access ends that phase's threads only; the request goes on in another.
{
    my @cases = map { +{ path => '/access', how => 'leave', state => 'reading', kind => $_, name => "access-$_" } }
        grep { !/\A(?:own|thread_in_wrap)\z/ } @kinds;
    my %got = ask(@cases);
    my @wrong = grep { $got{$_} ne 'content 7' } sort keys %got;
    is( join( ' ', map {"$_: $got{$_}"} @wrong ), '', 'a phase that is left while coroutines wait' );
}

# The thread is killed about when the answer comes.
{
    my @cases;
    for my $kind ( grep { !/^(?:entry|own|thread_in_wrap)/ } @kinds ) {
        for my $after ( 17 .. 24 ) {
            push @cases,
                { path => '/case', kind => $kind, how => 'kill', state => 'reading', after => $after,
                name => "just-$kind-$after" };
        }
    }
    my ( $wrong, %seen ) = ('');
    for my $round ( 1 .. 3 ) {
        my %got = ask( map { { %$_, name => "$_->{name}-$round" } } @cases );
        for my $name ( sort keys %got ) {
            # one that has ended before cannot be killed
            $wrong .= "$name: $got{$name}\n" if $got{$name} !~ /\A(?:ended|status 500|)\z/;
            $seen{ $got{$name} }++;
        }
    }
    is( $wrong, '', 'killed just when the answer comes' );
    ok( $seen{ended}, 'and before' );
}

is( $nginx->get('/works'), "works\n", 'it works' );
# raw use of a group: no server is chosen
my $raw = $ENV{TEST_NGINX_UPSTREAM} ? 'not for upstreams: no server chosen' : $unknown;
is( $nginx->get('/filter'), <<"END", 'coroutines that a filter has made' );
x
get: $unknown
gets: $unknown
list: $unknown
set: $unknown
version: $unknown
pipeline: $unknown
connect: $unknown
raw: $raw
in the filter: $unknown
b: B
a: A
END
is( $nginx->get('/log'), "x\n", 'a request whose log connects' ) for 1 .. 2;
is( $nginx->get('/logged'), <<'END' x 2, 'and may not' );
Lua's own: false API disabled in the context of log_by_lua*
ngx_lua's: false API disabled in the context of log_by_lua*
END
like( $nginx->get('/started'), qr/\A(?:false .*API disabled in the context of init_worker_by_lua\*\n){2}\z/,
    'init_worker_by_lua*' );

# What has ended does not go on later either.
sleep 0.3;
my @late = grep {/-(?:kill|kill_gc|exit|exec|error|leave)-/} split /\n/, $nginx->get('/gone_on');
@late = grep { !/own/ } @late;
is( join( "\n", @late ), '', 'nothing has gone on that was ended' );

ok( LiveNginx::alive($worker), 'the same worker' );
is( ( $nginx->workers )[0], $worker, 'still serves' );
ok( $nginx->quit(20), 'nginx ends' );
is( join( "\n", $nginx->log_lines(qw( alert crit emerg )) ), '', 'nothing alarming was logged' );
done_testing();
