use strict;
use warnings;
use lib 't/lib';

use IO::Select;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw( sleep time );

use DnsServer;
use TestCerts;
use TestEnv;
use LiveNginx;

# When connections are scarce, nginx closes idle clients before it opens another one. So it does for
# connections to memcached, however they come to be opened; and never if none is.

plan skip_all => 'the reference leaves that to cosockets' if TestEnv::reference_lib();

my $certs = TestCerts::dir();
my $tls   = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );
my $dns   = DnsServer::start();

my $http = qq{
    keepalive_timeout 60s;
    resolver 127.0.0.1:$dns ipv6=off;
    resolver_timeout 2s;
    lua_ssl_trusted_certificate $certs/ca.pem;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        tls = $tls
        ways = require "roomways"
    }
};
my $server = q{
    location = /plain { content_by_lua_block { ngx.print("plain") } }
    # ends when it is told to
    location = /hold {
        content_by_lua_block {
            holding = (holding or 0) + 1
            while not io.open(ngx.config.prefix() .. "released") do ngx.sleep(0.02) end
            holding = holding - 1
            ngx.print("held")
        }
    }
    location = /linger {
        lingering_close always;
        lingering_time 3s;
        lingering_timeout 3s;
        content_by_lua_block {
            while not io.open(ngx.config.prefix() .. "released") do ngx.sleep(0.02) end
            -- what it leaves behind is cleaned up when it has lingered
            for _, multiplex in ipairs{ false, 2 } do
                local m = kit.new{ multiplex = multiplex }
                ngx.thread.spawn(function() m:connect("1.never.test", 11211) end)
            end
            ngx.print("held")
            ngx.exit(200)
        }
        log_by_lua_block {
            collectgarbage()
            pcall(require "resty.memcached".new)
        }
    }
    location /run/ {
        content_by_lua_block {
            local prepare, run = unpack(ways[ngx.var.uri:match("[^/]+$")])
            local with = prepare and prepare()
            ngx.print(run(with))
        }
    }
    # the same in two steps, with all that is held in between
    location /prepare/ {
        content_by_lua_block {
            local prepare, run = unpack(ways[ngx.var.uri:match("[^/]+$")])
            local with = prepare and prepare()
            while not io.open(ngx.config.prefix() .. "go") do ngx.sleep(0.02) end
            ngx.print(run(with))
        }
    }
};

my @idle;

sub start {
    my (%opt) = @_;
    @idle = ();
    return LiveNginx->start(
        private     => 'says so itself',
        http        => $http,
        server      => $server,
        connections => 64,
        %opt,
    );
}

# A client that has asked.
sub client {
    my ( $nginx, $path, $rest ) = @_;
    my $client = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port, Timeout => 5 ) or return;
    ask( $client, $path, $rest );
    return $client;
}

sub ask {
    my ( $client, $path, $rest ) = @_;
    $rest //= "\r\n\r\n";
    print {$client} "GET $path HTTP/1.1\r\nHost: x$rest";
    $client->flush;
    return;
}

# The body of the answer that a client gets; undef: none, as it was closed.
sub answer {
    my ($client) = @_;
    my ( $got, $watch ) = ( '', IO::Select->new($client) );
    until ( $got =~ /\r\n0\r\n\r\n\z/ ) {
        $watch->can_read(20) or return 'no answer';
        sysread $client, $got, 65536, length $got or return;
    }
    $got =~ s/\A.*?\r\n\r\n//s;
    $got =~ s/([0-9a-f]+)\r\n(.*?)\r\n/$2/gs;
    return $got =~ s/0?\r\n\z//r;
}

# Whether nginx has closed it.
sub is_closed {
    my ($client) = @_;
    return IO::Select->new($client)->can_read(0) && !sysread $client, my $byte, 1;
}

sub touch {
    my ( $nginx, $name ) = @_;
    open my $file, '>', "$nginx->{dir}/$name" or die "$name: $!\n";
    close $file;
    return;
}

# As many clients as there are free connections ask, and hold them. Then they are idle.
sub take_all {
    my ( $nginx, $path, $rest ) = @_;
    while (1) {
        my $client = client( $nginx, $path, $rest ) or last;
        # nginx closes it if it has no connection for it
        sleep 0.01;
        last if is_closed($client);
        push @idle, $client;
    }
    touch( $nginx, 'released' );
    @idle = grep { ( answer($_) // '' ) =~ /held/ } @idle;
    cmp_ok( scalar @idle, '>', 45, scalar(@idle) . ' clients' );
    return;
}

# What was logged but for the line of take_all.
sub clean {
    my ( $nginx, $name ) = @_;
    my @bad = $nginx->log_lines(qw( error crit alert emerg ));
    my @scarce = grep {/worker_connections are not enough/} @bad;
    @bad = grep { !/worker_connections are not enough|timed out|\(104: / } @bad;
    is_deeply( \@bad, [], "$name: nothing bad in the log" );
    # but for clients, of which none is asking yet
    @scarce = grep { !/not enough\z/ } @scarce;
    cmp_ok( scalar @scarce, '==', 0, "$name: there were enough connections" ) or diag("@scarce");
    return;
}

my %expected = (
    address   => 'ok x 12',
    name      => 'ok x 12',
    names     => 'ok x 12',
    pooled    => 'ok x 6',
    plain     => 'ok x 6',
    queue     => 'ok x 6',
    tls       => 'ok x 6',
    shared    => 'ok x 12',
    verbosity => 'ok x 12',
    raw       => 'ok x 12',
    pipeline  => 'ok x 12',
    named     => 'ok x 12',
    further   => '1,1,2',
    queued    => '3',
    loss      => 'ok x 6',
    reopened  => 'ok x 6',
    shared_tls => 'ok x 6',
);

for my $way ( sort keys %expected ) {
    subtest "all connections are idle clients': $way" => sub {
        my $nginx = start();
        my $runner = client( $nginx, "/prepare/$way" );
        sleep 0.2;
        take_all( $nginx, '/hold' );
        touch( $nginx, 'go' );
        is( answer($runner), $expected{$way}, 'what was asked for' );
        my $closed = grep { is_closed($_) } @idle;
        cmp_ok( $closed, '>', 0, "$closed of " . @idle . ' were closed' );
        cmp_ok( $closed, '<', scalar @idle, 'not all' );
        ok( $nginx->quit(20), 'ends' );
        clean( $nginx, $way );
    };
}

subtest 'nothing is opened, and nobody closed' => sub {
    my $nginx = start();
    my $runner = client( $nginx, '/prepare/nothing' );
    sleep 0.2;
    take_all( $nginx, '/hold' );
    touch( $nginx, 'go' );
    is( answer($runner), 'ok x 8', 'what was asked for' );
    is( scalar( grep { is_closed($_) } @idle ), 0, 'all clients are there' );
    ok( $nginx->quit(20), 'ends' );
    clean( $nginx, 'nothing' );
};

# Requests that linger have their log phase when they are closed.
for my $way (qw( address names queue loss plain )) {
    subtest "requests that linger: $way" => sub {
        my $nginx = start();
        my $runner = client( $nginx, "/prepare/$way" );
        sleep 0.2;
        take_all( $nginx, '/linger', "\r\nConnection: close\r\n\r\nmore" );
        touch( $nginx, 'go' );
        is( answer($runner), $expected{$way}, 'what was asked for' );
        my ($worker) = $nginx->workers;
        is( $nginx->get('/run/shared'), 'ok x 12', 'the next request' );
        is_deeply( [ $nginx->workers ], [$worker], 'the same worker' );
        ok( $nginx->quit(20), 'ends' );
        my @bad = grep { !/worker_connections are not enough/ } $nginx->log_lines(qw( crit alert emerg ));
        is_deeply( \@bad, [], 'nothing bad in the log' );
    };
}

# nginx looks at all of its connections when a worker ends.
for my $main ( '', 'worker_shutdown_timeout 300ms;' ) {
    for my $shared ( 'off', 2 ) {
        subtest "a worker ends, multiplex $shared; $main" => sub {
            my $nginx = start(
                main => "worker_processes 1;\n$main\n",
                http => "lua_memcached_multiplex $shared;\n$http",
            );
            # a connection that nothing has to be opened for later
            is( $nginx->get('/run/keep'), 'kept', 'a connection' );
            my $slow = client( $nginx, '/run/slow' );
            take_all( $nginx, '/hold' );
            ask( $idle[-1], '/run/keep' );
            is( answer( $idle[-1] ), 'kept', 'that connection' );
            my ($old) = $nginx->workers;
            $nginx->signal('HUP');
            ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 10 ), 'the worker goes' );
            is( $nginx->get('/run/keep'), 'kept', 'another one works' );
            ok( $nginx->quit(20), 'ends' );
            clean( $nginx, 'the end' );
        };
    }
}

done_testing();
