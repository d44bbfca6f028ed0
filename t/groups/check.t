use strict;
use warnings;

use lib 't/lib';

use Test::More;
use Time::HiRes qw( sleep time );
use TestEnv memcached => 0;
use Endpoint;
use LiveNginx;

# lua_memcached_check: who is asked when, and what an answer does. A server of its own for each upstream.

my $servers = Endpoint->start(10);
my ( $once, $thrice, $slow, $idle, $one_asks, $each_asks, $passed, $down, $held, $late ) = $servers->ports;
my $good    = TestEnv::start_memcached();
my $VERSION = "VERSION 1.6.18\r\n";

sub upstream {
    my ( $name, $port, $check, $zone ) = @_;
    return qq{
        upstream $name {
            @{[ $zone ? "zone $name 64k;" : '' ]} lua_memcached_hash modula;
            @{[ $check ? "lua_memcached_check $check;" : '' ]}
            server 127.0.0.1:$good; server 127.0.0.1:$port max_fails=1 fail_timeout=1s;
        }
    };
}

my $http = join '', upstream( once => $once, 'interval=50ms timeout=20s', 1 ),
    upstream( thrice => $thrice, 'interval=50ms passes=3 timeout=20s',    1 ),
    upstream( slow   => $slow,   'interval=60s' ),
    upstream( idle   => $idle,   'interval=50ms',                         1 ),
    upstream( one    => $one_asks, 'interval=100ms passes=100',           1 ),
    upstream( each   => $each_asks, 'interval=100ms passes=100' ),
    upstream( held   => $held,   'interval=50ms timeout=300s',            1 ),
    upstream( late   => $late,   'interval=50ms timeout=100ms',           1 ),
    qq{
        upstream passed {
            zone passed 64k; hash \$memcached_key consistent; lua_memcached_check interval=50ms;
            server 127.0.0.1:$good; server 127.0.0.1:$passed max_fails=1 fail_timeout=60s;
        }
        upstream down {
            lua_memcached_hash modula; lua_memcached_check interval=50ms;
            server 127.0.0.1:$good; server 127.0.0.1:$down down max_fails=1;
        }
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            function object(name)
                local m = require "resty.memcached":new()
                m:set_timeouts(1000, 1000, 1000)
                assert(m:connect(name))
                return m
            end
            -- A key of another server than this one, which is always there.
            function key_of(m, beginning)
                for i = 1, 10000 do
                    local key = (beginning or "key") .. i
                    if m:server_of(key) ~= "127.0.0.1:$good" then return key end
                end
            end
            keys = {}
        }
    };
my $server = qq{
    location /passed/ { set \$memcached_key \$uri; memcached_pass passed; }
    # disables the server of a group, which is not there, by a command
    location = /disable {
        content_by_lua_block {
            local m = object(ngx.var.arg_name)
            local key = key_of(m, ngx.var.arg_beginning)
            ngx.print(ngx.worker.pid(), " ")
            if not key then return ngx.print("disabled already") end
            keys[ngx.var.arg_name] = key
            local _, _, err = m:get(key)
            ngx.print(m:server_of(key) == "127.0.0.1:$good" and "disabled" or tostring(err))
        }
    }
    # whether it is used
    location = /used {
        content_by_lua_block {
            ngx.print(key_of(object(ngx.var.arg_name)) and "used" or "not used")
        }
    }
};

my $nginx = LiveNginx->start( http => $http, server => $server );

# Whether a condition comes true. The machine may be busy.
sub until_true { return $nginx->wait_for( $_[0], 60 ) }

sub log_count {
    my ($pattern) = @_;
    return scalar grep {/$pattern/} split /\n/, $nginx->log;
}

sub is_used {
    my ($name) = @_;
    return $nginx->get("/used?name=$name") eq 'used';
}

sub disable {
    my ( $name, $port ) = @_;
    $servers->says( $port, undef );
    return until_true( sub { $nginx->get("/disable?name=$name") =~ / disabled/ } );
}

sub asked { return $servers->asked( $_[0], 'version' ) }

# As many more questions as this.
sub rounds {
    my ( $port, $count ) = @_;
    my $from = asked($port);
    return until_true( sub { asked($port) >= $from + $count } );
}

# Has a port take a question, and not answer.
sub hold {
    my ($port) = @_;
    my $from = asked($port);
    $servers->says( $port, {} );
    return until_true( sub { asked($port) > $from } );
}

$servers->says( $_, { version => $VERSION } ) for $servers->ports;

subtest 'a server that is up is not asked' => sub {
    sleep 0.5;
    is( scalar $servers->seen($idle), 0, 'no connection' );
    is( scalar $servers->seen($down), 0, 'nor one that is down in the file' );
};

subtest 'a disabled server that comes back' => sub {
    ok( disable( once => $once ), 'disabled' );
    sleep 1.5;
    ok( !is_used('once'), 'it is away for longer than fail_timeout' );
    is( log_count(qr/once" is used again/), 0, 'and stays disabled' );
    $servers->says( $once, { version => $VERSION } );
    ok( until_true( sub { is_used('once') } ), 'it comes back' );
    is( log_count( qr/\[info\] .*upstream server "127\.0\.0\.1:$once" of "once" is used again, memcached: 127\.0\.0\.1:$once\z/ ),
        1, 'which is told' );
    ok( until_true( sub { $servers->connections($once) == 0 } ), '... and no connection is left' );
    is_deeply( [ map { $_->[1] } $servers->seen($once) ], [qw( opened version closed )], 'after one question' );
    sleep 0.3;
    is( asked($once), 1, 'then it is asked no more' );
};

subtest 'no command is the trial' => sub {
    ok( disable( slow => $slow ), 'disabled' );
    $servers->says( $slow, { version => $VERSION } );
    sleep 2.2;    # more than fail_timeout
    ok( !is_used('slow'), 'not used without a check' );
    like( $nginx->get('/disable?name=slow'), qr/ disabled already\z/, 'by no command' );
    is( scalar $servers->seen($slow), 0, 'it sees no connection' );
};

subtest 'so many in a row' => sub {
    ok( disable( thrice => $thrice ), 'disabled' );
    my @bad = ( "ERROR\r\n", $VERSION, $VERSION, { close => 'VERSI' } );
    $servers->says( $thrice, { version => [ @bad, $VERSION, $VERSION, { close => '' }, $VERSION ] } );
    ok( until_true( sub { is_used('thrice') } ), 'it is used again' );
    is( asked($thrice), 10, 'after the third good answer in a row' );
};

subtest 'wrong and late answers' => sub {
    ok( disable( late => $late ), 'disabled' );
    for my $case (
        [ 'garbage',        "\0\1\2\r\n" ],
        [ 'another line',   "END\r\n" ],
        [ 'two lines',      "$VERSION$VERSION" ],
        [ 'no version',     "VERSION \r\n" ],
        [ 'too long',       'VERSION ' . ( '1' x 1000 ) . "\r\n" ],
        [ 'nothing',        undef ],
        [ 'a half',         'VERSION 1.6' ],
        [ 'a half and end', { close => 'VERSION 1.6' } ],
        [ 'late',           { late => [ 3, $VERSION ] } ],
        [ '100 MB',         { flood => 'VERSION ' } ],
        )
    {
        my ( $name, $answer ) = @$case;
        $servers->says( $late, { version => $answer } );
        ok( rounds( $late, 2 ), "$name: asked again" );
        ok( !is_used('late'), "$name: does not pass" );
    }
    $servers->says( $late, { version => $VERSION } );
    ok( until_true( sub { is_used('late') } ), 'a good one passes' );
    ok( until_true( sub { $servers->connections($late) == 0 } ), 'no connection is left' );
};

subtest 'disabled by memcached_pass' => sub {
    $servers->says( $passed, undef );
    my $disabled = qr/temporarily disabled.*passed/;
    until_true( sub { $nginx->get( '/passed/' . int rand 1e9 ); log_count($disabled) } );
    is( log_count($disabled), 1, 'nginx disables it' );
    $servers->says( $passed, { version => $VERSION, get => "END\r\n" } );
    ok( until_true( sub { is_used('passed') } ), 'a check puts it back' );
    ok( until_true( sub { $nginx->get( '/passed/' . int rand 1e9 ); $servers->asked( $passed, 'opened' ) > 1 } ),
        '... for memcached_pass, too' );
};

subtest 'reload and exit while a question waits' => sub {
    ok( disable( held => $held ), 'disabled' );
    ok( hold($held), 'a question that gets no answer' );
    my ($old) = $nginx->workers;
    $nginx->signal('HUP');
    my $gone = sub { !grep { $_ == $old } $nginx->workers };
    ok( until_true($gone), 'the old worker goes' );
    ok( until_true( sub { $servers->connections($held) == 0 } ), 'and its question with it' );
    ok( disable( held => $held ), 'disabled again: counts are those of a configuration' );
    ok( hold($held), 'the new worker asks' );
    my @told = grep { !/temporarily disabled|111: Connection refused|: no live upstreams/ } $nginx->log_lines(qw( warn error crit alert emerg ));
    is_deeply( \@told, [], 'nothing else is in the log' );
    ok( $nginx->quit(60), 'nginx ends' );
    is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
};
undef $nginx;

# How often servers are asked in the same 3 seconds.
sub rates {
    my @from = map { asked($_) } @_;
    sleep 3;
    return map { asked($_) - shift @from } @_;
}

subtest 'two workers' => sub {
    $servers->says( $_, undef ) for $one_asks, $each_asks;
    sleep 0.1;
    $nginx = LiveNginx->start( main => "worker_processes 2;\n", http => $http, server => $server );
    # commands meet the server in both workers
    my %met;
    until_true(
        sub {
            my ( $pid, $said ) = split / /, $nginx->get('/disable?name=each') // q{ };
            $met{$pid} = 1 if $said =~ /\Adisabled/;
            keys %met == 2;
        }
    );
    is( keys %met, 2, 'a command of each worker' );
    ok( disable( one => $one_asks ), 'a command of one' );
    $servers->says( $_, { version => $VERSION } ) for $one_asks, $each_asks;
    ok( rounds( $one_asks, 2 ), 'with a zone somebody asks' );
    my ( $one, $each ) = rates( $one_asks, $each_asks );
    cmp_ok( $one, '>', 1, '... all the time' );
    cmp_ok( $one, '<', 40, '... and only one worker: once in 100 ms' );
    cmp_ok( $each, '>', 1.4 * $one, 'without a zone both workers ask' );
    my ($first) = $nginx->workers;
    kill KILL => $first;
    ok( until_true( sub { my @now = $nginx->workers; @now == 2 && $now[0] != $first } ), 'the first worker dies' );
    ok( rounds( $one_asks, 2 ), 'its successor asks' );
    is_deeply( [ grep { !/exited on signal 9/ } $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
    undef $nginx;
};

subtest 'one process, whose configuration is read again' => sub {
    $servers->says( $once, undef );
    $nginx = LiveNginx->start( main => "master_process off;\n", http => $http, server => $server );
    ok( disable( once => $once ), 'disabled' );
    ok( hold($once), 'a question that gets no answer' );
    my $reread = qr/reconfiguring.*runs with ngx_lua/s;
    $nginx->signal('HUP');
    ok( until_true( sub { $nginx->log =~ $reread } ), 'read again' );
    ok( until_true( sub { $servers->connections($once) == 0 } ), 'the question is given up' );
    # nginx itself has no connections any more then
    sleep 0.3;
    ok( LiveNginx->alive( $nginx->pid ), 'nginx goes on' );
    is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
    undef $nginx;
};

subtest 'a worker does not wait for its next question' => sub {
    $nginx = LiveNginx->start( http => upstream( slow => $slow, 'interval=300s' ) . 'init_worker_by_lua_block {}', server => q{} );
    sleep 0.2;
    ok( $nginx->quit(60), 'nginx ends' );
    undef $nginx;
};

done_testing();
