use strict;
use warnings;
use lib 't/lib';

use IO::Select;
use POSIX ();
use Test::More;
use Time::HiRes qw( sleep time );

use TestEnv;
use LiveNginx;

my $http = TestEnv::http_config() . qq{
    lua_shared_dict told 1m;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
    }
};
my $server = q{
    location = /work {
        content_by_lua_block {
            local key = ngx.var.arg_key
            local m = kit.connect(nil, { pool = "work" })
            m:set(key, key)
            ngx.sleep(0.002)
            local value = m:get(key)
            m:delete(key)
            ngx.print(value == key and "yes" or "no", " ", (m:set_keepalive()))
        }
    }
    location = /pid { content_by_lua_block { ngx.print(ngx.worker.pid()) } }
    location = /slow {
        content_by_lua_block {
            local m = kit.connect()
            ngx.sleep(0.3)
            ngx.print(kit.in_step(m), " ", (m:set_keepalive()))
        }
    }
};

# Nothing may be logged that an operator should look at; signal => 1: except that a worker was killed.
sub clean {
    my ( $nginx, $name, %allowed ) = @_;
    my @bad = grep { !$allowed{signal} || !/exited on signal 9/ }
        $nginx->log_lines(qw( error crit alert emerg ));
    is_deeply( \@bad, [], "$name: nothing bad in the log" );
    return;
}

subtest 'HUP under load' => sub {
    my $nginx = LiveNginx->start( http => $http, server => $server );
    my $load  = $nginx->load( '/work', 4, qr/\Ayes 1\z/ );
    my $slowest = 0;
    for ( 1 .. 8 ) {
        sleep 0.1;
        my ($old) = $nginx->workers;
        $nginx->signal('HUP');
        my $took = $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers } );
        $slowest = !defined $took ? 99 : $took > $slowest ? $took : $slowest;
    }
    my ( $right, @wrong ) = $nginx->end_load($load);
    cmp_ok( $right, '>', 20, 'answers' );
    is_deeply( \@wrong, [], 'every answer is right' );
    cmp_ok( $slowest, '<', 2, 'old workers leave' );
    ok( $nginx->quit, 'QUIT ends it' );
    clean( $nginx, 'HUP' );
};

subtest 'QUIT under load' => sub {
    for ( 1 .. 3 ) {
        my $nginx = LiveNginx->start( http => $http, server => $server );
        my $load = $nginx->load( '/work', 4, qr/\Ayes 1\z/ );
        sleep 0.2;
        my $took = $nginx->quit;
        my ( $right, @wrong ) = $nginx->end_load($load);
        cmp_ok( $right, '>', 0, 'answers' );
        is_deeply( [ grep { !/no answer\z/ } @wrong ], [], 'no answer is wrong' );
        cmp_ok( $took // 99, '<', 2, 'it ends soon' );
        clean( $nginx, 'QUIT' );
    }
};

subtest 'QUIT finishes what runs' => sub {
    my $nginx = LiveNginx->start( http => $http, server => $server );
    my $socket = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port );
    print {$socket} "GET /slow HTTP/1.0\r\n\r\n";
    sleep 0.1;
    $nginx->signal('QUIT');
    my $answer = do { local $/; <$socket> };
    like( $answer, qr/\r\n\r\nyes 1\z/, 'the answer comes' );
    ok( $nginx->quit, 'then it ends' );
    clean( $nginx, 'QUIT' );
};

subtest 'USR2: a new binary takes over under load' => sub {
    my $nginx = LiveNginx->start( daemon => 1, http => $http, server => $server );
    my $load = $nginx->load( '/work', 4, qr/\Ayes 1\z/ );
    sleep 0.1;
    $nginx->signal('USR2');
    my $new;
    ok( $nginx->wait_for( sub { ($new) = grep { scalar $nginx->workers($_) } $nginx->workers } ),
        'a new master with workers' )
        or return;
    sleep 0.1;
    ok( $nginx->quit, 'the old one ends' );
    $nginx->follow($new);
    sleep 0.1;
    my ( $right, @wrong ) = $nginx->end_load($load);
    cmp_ok( $right, '>', 30, 'answers' );
    is_deeply( \@wrong, [], 'every answer is right' );
    is( $nginx->get('/work?key=k'), 'yes 1', 'the new one works' );
    ok( $nginx->quit, 'and ends' );
    clean( $nginx, 'USR2' );
};

subtest 'a worker is killed, and another takes its place' => sub {
    my $nginx = LiveNginx->start( http => $http, server => $server );
    my $load = $nginx->load( '/work', 4, qr/\Ayes 1\z/ );
    for ( 1 .. 3 ) {
        sleep 0.1;
        my ($old) = $nginx->workers;
        $nginx->signal( KILL => $old );
        ok( $nginx->wait_for( sub { grep { $_ != $old } $nginx->workers } ), 'another worker' );
    }
    sleep 0.1;
    my ( $right, @wrong ) = $nginx->end_load($load);
    cmp_ok( $right, '>', 30, 'answers' );
    is_deeply( [ grep { !/no answer\z/ } @wrong ], [], 'no answer is wrong' );
    is( $nginx->get('/work?key=k'), 'yes 1', 'it works' );
    ok( $nginx->quit, 'QUIT ends it' );
    clean( $nginx, 'KILL', signal => 1 );
};

subtest 'several workers, pools of their own' => sub {
    my $nginx = LiveNginx->start(
        main => "worker_processes 3;\n",
        http => $http,
        server => $server . q{
            location = /count {
                content_by_lua_block {
                    local m = kit.connect(nil, { pool = "count" })
                    ngx.print(ngx.worker.pid(), " ", m:get_reused_times(), " ", kit.in_step(m), " ",
                        (m:set_keepalive()))
                }
            }
        },
    );
    ok( $nginx->wait_for( sub { $nginx->workers == 3 } ), 'three workers' );
    my ( %next, @wrong );
    for ( 1 .. 200 ) {
        my $got = $nginx->get('/count');
        my ( $pid, $reused, $rest ) = split ' ', $got, 3;
        push @wrong, $got if $rest ne 'yes 1' || $reused != ( $next{$pid}++ // 0 );
    }
    is_deeply( \@wrong, [], 'each worker reuses its own' );
    my $load = $nginx->load( '/work', 6, qr/\Ayes 1\z/ );
    sleep 0.2;
    $nginx->signal('HUP');
    sleep 0.3;
    my ( $right, @bad ) = $nginx->end_load($load);
    cmp_ok( $right, '>', 50, 'answers' );
    is_deeply( \@bad, [], 'every answer is right' );
    cmp_ok( $nginx->quit // 99, '<', 3, 'QUIT ends it' );
    clean( $nginx, 'workers' );
};

subtest 'one process, no master' => sub {
    my $nginx = LiveNginx->start( main => "master_process off;\n", http => $http, server => $server );
    is( $nginx->get('/pid'), $nginx->pid, 'one process' );
    my $load = $nginx->load( '/work', 4, qr/\Ayes 1\z/ );
    sleep 0.5;
    my ( $right, @wrong ) = $nginx->end_load($load);
    cmp_ok( $right, '>', 50, 'answers' );
    is_deeply( \@wrong, [], 'every answer is right' );
    ok( $nginx->quit, 'QUIT ends it' );
    clean( $nginx, 'single' );
};

subtest 'the last moments of a worker' => sub {
    my $told = q{ function(name, ...) ngx.log(ngx.NOTICE, "TOLD ", name, ": ", kit.vals(...)) end };
    my $nginx = LiveNginx->start(
        http => $http . qq{
            init_worker_by_lua_block {
                local told = $told
                ngx.timer.at(3600, function(premature)
                    local m = kit.new()
                    local ok, err = m:connect("127.0.0.1", kit.port)
                    told("timer", premature, ok, err)
                    told("in step", kit.in_step(m))
                    told("keep", m:set_keepalive())
                end)
            }
            exit_worker_by_lua_block {
                local told = $told
                local memcached = require "resty.memcached"
                told("exit_worker", kit.raise_text(memcached.new, memcached))
            }
        },
        server => $server,
    );
    is( $nginx->get('/work?key=k'), 'yes 1', 'it works' );
    ok( $nginx->quit, 'QUIT ends it' );
    my %told = $nginx->log =~ /TOLD ([^:]+): (.*?)(?:, context: [^\n]*)?\n/g;
    is_deeply(
        \%told,
        {   'timer'       => 'true, 1, nil',
            'in step'     => '"yes"',
            'keep'        => '1',
            'exit_worker' => '"API disabled in the context of exit_worker_by_lua*"',
        },
        'what timers and exit_worker_by_lua can do'
    );
    clean( $nginx, 'exit' );
};

done_testing();
