use strict;
use warnings;

use lib 't/lib';

use Test::More;
use Time::HiRes qw( sleep time );
use TestEnv memcached => 0;
use DnsServer;
use Endpoint;
use LiveNginx;

# lua_memcached_discover: whom a worker asks for the list of servers, and what it does with the answer.
# Each upstream has an endpoint of its own. "asks" is called until a question more was answered.

my $CONFIG = 'config get cluster';
my $OLD    = 'get AmazonElastiCache:cluster';
my $dns    = DnsServer::start();
my @nodes  = map { TestEnv::start_memcached() } 1 .. 4;
my $ends   = Endpoint->start(26);
my ( $moves, $hosts, $old, $plain, $away, $late, $named, $unnamed, $first, $node, $checked, $held, $fake, @bad ) = $ends->ports;

sub nodes {
    my ( $host, @ports ) = @_;
    return map {"$host|127.0.0.1|$_"} @ports;
}

sub discover {
    my ( $name, $port, $more ) = @_;
    $more //= 'name=ip';
    return
        "upstream $name { lua_memcached_hash ketama; lua_memcached_discover elasticache interval=1s $more; server 127.0.0.1:$port; }\n";
}

sub static {
    my ( $name, @ports ) = @_;
    return "upstream $name { lua_memcached_hash ketama; " . ( join ' ', map {"server 127.0.0.1:$_;"} @ports ) . " }\n";
}

my $http = join q{}, discover( moves => $moves ), discover( old => $old ), discover( plain => $plain ), discover( away => $away ),
    discover( late => $late ), ( map { discover( "bad$_" => $bad[$_] ) } 0 .. $#bad ), discover( first => $first ), discover( node => $node ), discover( held => $held ),
    discover( hosts   => $hosts,   'name=host' ),
    discover( named   => $named,   'name=host' ),
    discover( unnamed => $unnamed, 'name=host' ),
    discover( checked => $checked, 'name=ip; lua_memcached_check interval=100ms' ),
    static( two => @nodes[ 0, 1 ] ), static( three => @nodes[ 0 .. 2 ] ), static( four => @nodes ), qq{
        upstream by_host { lua_memcached_hash ketama; server localhost:$nodes[0]; server localhost:$nodes[1]; server localhost:$nodes[2]; }
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            function object(name)
                local m = require "resty.memcached":new()
                m:set_timeouts(1000, 1000, 1000)
                assert(m:connect(name))
                return m
            end
            -- The ports of the servers that 500 keys have.
            function ports(name)
                local m, found = object(name), {}
                for i = 1, 500 do
                    local server, err = m:server_of("key" .. i)
                    found[i] = server and server:match("%d+\$") or err
                end
                return table.concat(found, ",")
            end
        }
    };
my $server = q{
    location = /ports { content_by_lua_block { ngx.print(ports(ngx.var.arg_name)) } }
    location = /get {
        content_by_lua_block {
            local m = object(ngx.var.arg_name)
            local value, _, err = m:get(ngx.var.arg_key)
            m:set_keepalive()
            ngx.print(tostring(value), " ", tostring(err))
        }
    }
    location = /set {
        content_by_lua_block {
            local m = object(ngx.var.arg_name)
            for i = 1, 100 do assert(m:set("key" .. i, i)) end
            m:set_keepalive()
            ngx.print("set")
        }
    }
    # a key of the server at this port
    location = /key_of {
        content_by_lua_block {
            local m = object(ngx.var.arg_name)
            for i = 1, 10000 do
                local key = "key" .. i
                if m:server_of(key) == "127.0.0.1:" .. ngx.var.arg_port then return ngx.print(key) end
            end
            ngx.print("none")
        }
    }
};

$ends->says( $_, { $CONFIG => Endpoint::list( 1, nodes( 'a', @nodes[ 0, 1 ] ) ) } ) for $ends->ports;
$ends->says( $hosts, { $CONFIG => Endpoint::list( 7, nodes( 'localhost', @nodes[ 0 .. 2 ] ) ) } );
$ends->says( $old,
    { $CONFIG => "ERROR\r\n", $OLD => Endpoint::list( 1, nodes( 'a', @nodes[ 0, 1 ] ) ) =~ s/CONFIG cluster/VALUE AmazonElastiCache:cluster/r } );
$ends->says( $plain, { $CONFIG => "ERROR\r\n", $OLD => "END\r\n", get => "END\r\n" } );
$ends->says( $named,   { $CONFIG => Endpoint::list( 1, map {"$_.one.test||$nodes[0] "} qw( a b ) ) } );
$ends->says( $unnamed, { $CONFIG => Endpoint::list( 1, "a.nx.test||$nodes[0]" ) } );
$ends->says( $late, {} );

my $with_dns = $http . "resolver 127.0.0.1:$dns ipv6=off;\n";
my $nginx    = LiveNginx->start( http => $with_dns, server => $server );

# Whether a condition comes true. The machine may be busy.
sub until_true { return $nginx->wait_for( $_[0], 60 ) }

sub ports { return $nginx->get("/ports?name=$_[0]") // 'no answer' }

sub log_lines_of {
    my ($pattern) = @_;
    return grep {/$pattern/} split /\n/, $nginx->log;
}

sub asks {
    my ( $port, $count, $question ) = @_;
    my $from = $ends->asked( $port, $question // $CONFIG );
    return until_true( sub { $ends->asked( $port, $question // $CONFIG ) >= $from + ( $count // 2 ) } );
}

sub becomes {
    my ( $name, $like ) = @_;
    my $wanted = ports($like);
    return until_true( sub { ports($name) eq $wanted } );
}

subtest 'the first list' => sub {
    ok( becomes( moves => 'two' ), 'keys are where a block with these servers has them' );
    is( $nginx->get('/set?name=moves'), 'set', 'the servers take values' );
    is( $ends->asked( $moves, 'set' ), 0, 'the endpoint does not' );
    like( ( log_lines_of(qr/upstream "moves" has/) )[0],
        qr/\[notice\] .*lua memcached discovery: upstream "moves" has 2 servers, version 1 of its list, memcached: 127\.0\.0\.1:$moves\z/,
        'which is told' );
    my @events = map { $_->[1] } $ends->seen($moves);
    is_deeply( [ @events[ 0 .. 2 ] ], [ 'opened', $CONFIG, 'closed' ], 'one question a connection' );
    ok( becomes( hosts => 'by_host' ), 'name=host: names are hashed' );
    isnt( ports('hosts'), ports('three'), '... not addresses' );
    ok( becomes( old => 'two' ), 'servers before 1.4.14' );
    cmp_ok( $ends->asked( $old, $OLD ), '>', 0, '... are asked as they want' );
};

subtest 'a server without lists' => sub {
    ok( asks( $plain, 2, $OLD ), 'is asked' );
    is( ports('plain') =~ s/$plain(?:,|\z)//gr, q{}, 'it stays in use' );
    is( $nginx->get('/get?name=plain&key=k'), 'nil nil', 'and gets commands' );
    my @told = log_lines_of(qr/upstream "plain" keeps its servers/);
    is( @told, 1, 'which is told once' );
    like( $told[0], qr/\[warn\] .*keeps its servers: the server knows no list of servers, memcached: 127\.0\.0\.1:$plain\z/, '... so' );
};

subtest 'versions' => sub {
    $ends->says( $moves, { $CONFIG => Endpoint::list( 2, nodes( 'a', @nodes[ 0 .. 2 ] ) ) } );
    ok( becomes( moves => 'three' ), 'a greater one is used' );
    $ends->says( $moves, { $CONFIG => Endpoint::list( 1, nodes( 'a', @nodes[ 0, 1 ] ) ) } );
    ok( asks($moves), 'asked' );
    is( ports('moves'), ports('three'), 'a smaller one is not' );
    $ends->says( $moves, { $CONFIG => Endpoint::list( 2, nodes( 'a', @nodes[ 0, 1 ] ) ) } );
    ok( asks($moves), 'asked' );
    is( ports('moves'), ports('three'), 'nor an equal one' );
    $ends->says( $moves, { $CONFIG => Endpoint::list( 10, nodes( 'a', @nodes ) ) } );
    ok( becomes( moves => 'four' ), '10 is greater than 2' );
    is( log_lines_of(qr/upstream "moves" keeps/), 0, 'nothing was wrong' );
};

subtest 'answers of no use' => sub {
    my $list = Endpoint::list( 5, nodes( 'a', @nodes ) );
    my $text = "5\na|127.0.0.1|$nodes[2]\n";
    my @cases = (
        [ 'garbage',    "\0\1\xff\r\n",                               'bad answer: unexpected answer' ],
        [ 'an error',   "SERVER_ERROR busy\r\n",                      'bad answer: unexpected answer' ],
        [ 'truncated',  { close => substr $list, 0, 40 },             'closed' ],
        [ 'half',       substr( $list, 0, 40 ),                       'timeout' ],
        [ 'LEN too big', $list =~ s/0 (\d+)/'0 ' . ( $1 + 5 )/er,       'timeout' ],
        [ 'LEN too small', $list =~ s/0 (\d+)/'0 ' . ( $1 - 5 )/er,     'bad answer: wrong length' ],
        [ 'LEN huge',   "CONFIG cluster 0 2000000000\r\n",            'bad answer: the list is too long' ],
        [ 'no \n',      Endpoint::whole( $text =~ s/\n\z//r ),        'bad answer: wrong length' ],
        [ 'no version', Endpoint::whole("a|127.0.0.1|$nodes[2]\n\n"), 'bad answer: no version' ],
        [ 'no server',  Endpoint::whole("5\na|127.0.0.1\n"),          'bad answer: a server is not written as host|ip|port' ],
        [ 'empty',      Endpoint::whole("6\n\n"),                     'bad answer: the list is empty' ],
        [ '100 MB',     { flood => substr $list, 0, 40 },             'bad answer: wrong length' ],
        [ 'a long line', { flood => 'x' },                            'bad answer: the list is too long' ],
    );
    is( @bad, @cases, 'an upstream for each' );
    my $told_of = sub {
        my ( $at, $from ) = @_;
        return grep {/upstream "bad$at" keeps/} split /\n/, substr $nginx->log, $from;
    };
    for my $round ( 1, 2 ) {
        my $before = length $nginx->log;
        ok( becomes( "bad$_" => 'two' ), "round $round, $cases[$_][0]: a list before" ) for 0 .. $#cases;
        $ends->says( $bad[$_], { $CONFIG => $cases[$_][1] } ) for 0 .. $#cases;
        ok( asks( $bad[$_], 3 ), "round $round, $cases[$_][0]: asked again" ) for 0 .. $#cases;
        for my $at ( 0 .. $#cases ) {
            my ( $name, undef, $why ) = @{ $cases[$at] };
            # a busy machine may be late, too
            my @told  = grep { /\Q$why\E/ || !/: timeout,/ } $told_of->( $at, $before );
            my $level = $name eq 'empty' ? 'error' : 'warn';
            is( ports("bad$at"), ports('two'), "round $round, $name: the list stays" );
            is( @told, 1, "round $round, $name: told once" ) or diag( join "\n", @told );
            like( $told[0], qr/\[$level\] .* keeps its servers: \Q$why\E, memcached: 127\.0\.0\.1:$bad[$at]\z/, '... so' );
        }
        # what was told is told again after a good answer
        $ends->says( $_, { $CONFIG => Endpoint::list( 1, nodes( 'a', @nodes[ 0, 1 ] ) ) } ) for @bad;
        ok( asks( $_, 2 ), 'a good answer' ) for @bad;
    }
    $ends->says( $_, { $CONFIG => $list } ) for @bad;
    ok( becomes( "bad$_" => 'four' ), "$cases[$_][0]: a good list is used" ) for 0 .. $#cases;
    ok( until_true( sub { !grep { $ends->connections($_) } @bad } ), 'no connection is left' );
};

subtest 'an endpoint that is away' => sub {
    ok( becomes( away => 'two' ), 'a list' );
    $ends->says( $away, undef );
    ok( until_true( sub { log_lines_of(qr/upstream "away" keeps its servers: connection refused/) } ), 'it is away' );
    sleep 2.5;
    is( ports('away'), ports('two'), 'the list stays' );
    is( log_lines_of(qr/upstream "away" keeps its servers: connection refused.*:$away\z/), 1, 'told once' );
    $ends->says( $away, { $CONFIG => Endpoint::list( 2, nodes( 'a', @nodes[ 0 .. 2 ] ) ) } );
    ok( becomes( away => 'three' ), 'it comes back' );
    is( $nginx->get('/get?name=late&key=k'), 'nil timeout', 'before there is a list, the endpoint is the server' );
    $ends->says( $late, { $CONFIG => Endpoint::list( 2, nodes( 'a', @nodes[ 0 .. 2 ] ) ) } );
    ok( becomes( late => 'three' ), 'a list that comes late' );
};

subtest 'servers of the list are asked when the endpoint is away' => sub {
    $ends->says( $node, { $CONFIG => Endpoint::list( 2, nodes( 'a', $nodes[0], $fake ) ) } );
    $ends->says( $fake, {} );
    ok( until_true( sub { ports('node') =~ /\b$fake\b/ } ), 'a list' );
    is( $ends->asked( $fake, $CONFIG ), 0, 'the endpoint is asked first' );
    $ends->says( $fake, { $CONFIG => Endpoint::list( 3, nodes( 'a', @nodes ) ) } );
    $ends->says( $node, undef );
    ok( becomes( node => 'four' ), 'a server of the list has a newer one' );
};

subtest 'names' => sub {
    ok( until_true( sub { ports('named') =~ /\A(?:$nodes[0],?)+\z/ } ), 'are looked up' );
    is( $nginx->get('/set?name=named'), 'set', 'and used' );
    ok( until_true( sub { log_lines_of(qr/upstream "unnamed" keeps/) } ), 'one that does not exist' );
    like( ( log_lines_of(qr/upstream "unnamed" keeps/) )[0], qr/\[error\] .*: a\.nx\.test could not be resolved \(3: Host not found\)/, 'is told' );
    ok( asks($unnamed), 'asked again' );
    is( log_lines_of(qr/upstream "unnamed" keeps .*could not be resolved/), 1, '... once' );
    is( ports('unnamed') =~ s/$unnamed(?:,|\z)//gr, q{}, '... and the servers stay' );
};

subtest 'failures of servers in a list' => sub {
    my $port = $fake;
    $ends->says( $fake, undef );
    $ends->says( $checked, { $CONFIG => Endpoint::list( 2, nodes( 'a', $nodes[0], $fake ) ) } );
    ok( until_true( sub { ports('checked') =~ /\b$fake\b/ } ), 'a list with a server that is away' );
    my $key = $nginx->get("/key_of?name=checked&port=$fake");
    like( $nginx->get("/get?name=checked&key=$key"), qr/ nil\z/, 'the next one has its keys' );
    unlike( ports('checked'), qr/\b$fake\b/, 'it is disabled' );
    is( log_lines_of(qr/temporarily disabled: "127\.0\.0\.1:$fake" of "checked"/), 1, '... which is told' );
    $ends->says( $checked, { $CONFIG => Endpoint::list( 3, nodes( 'a', @nodes[ 0, 1 ], $fake ) ) } );
    ok( until_true( sub { ports('checked') =~ /\b$nodes[1]\b/ } ), 'another list' );
    unlike( ports('checked'), qr/\b$fake\b/, 'what is known of a server that stays is kept' );
    $ends->says( $fake, { version => "VERSION 1\r\n" } );
    ok( until_true( sub { ports('checked') =~ /\b$fake\b/ } ), 'a check finds it' );
    is( log_lines_of(qr/"127\.0\.0\.1:$fake" of "checked" is used again/), 1, '... which is told' );
};

subtest 'reload and exit while a question waits' => sub {
    ok( becomes( first => 'two' ), 'a list' );
    ok( becomes( held => 'two' ), 'another' );
    $ends->says( $held, {} );
    ok( asks( $held, 1 ), 'a question that gets no answer' );
    my ($worker) = $nginx->workers;
    $nginx->signal('HUP');
    ok( until_true( sub { !grep { $_ == $worker } $nginx->workers } ), 'the old worker goes' );
    ok( becomes( first => 'two' ), 'the new one has a list' );
    is( ports('held') =~ s/$held(?:,|\z)//gr, q{}, '... or none' );
    ok( asks( $held, 1 ), 'and asks' );
    ok( $nginx->quit(60), 'nginx ends' );
    my @bad = $nginx->log_lines(qw( error crit alert emerg ));
    is_deeply( [ grep { !/could not be resolved|list is empty/ } @bad ], [], 'nothing bad in the log' );
    undef $nginx;
};

subtest 'several workers, no resolver' => sub {
    $nginx = LiveNginx->start( main => "worker_processes 2;\n", http => $http, server => $server );
    ok( until_true( sub { log_lines_of(qr/upstream "named" keeps its servers/) >= 2 } ), 'names cannot be looked up' );
    like( ( log_lines_of(qr/upstream "named" keeps/) )[0], qr/\[error\] .*: no resolver defined to resolve "a\.one\.test"/, '... which is told' );
    ok( until_true( sub { 2 == log_lines_of(qr/upstream "first" has 2 servers/) } ), 'each worker asks' );
    ok( $nginx->quit(60), 'nginx ends' );
    undef $nginx;
};

done_testing();
