use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LineServer;
use LiveNginx;

# Which answers of a server count as failures: with max_fails=1 one disables it. A server of its own for
# each case, beside one that is well.

# What the server says, what Lua asks for, the error that it gets, and whether the server is disabled then.
my %ask = (
    get   => q{select(3, m:get(k))},
    gets  => q{select(4, m:gets(k))},
    list  => q{select(2, m:get{ k })},
    set   => q{select(2, m:set(k, "value"))},
    cas   => q{select(2, m:cas(k, "value", 1))},
    incr  => q{select(2, m:incr(k, 1))},
    touch => q{select(2, m:touch(k, 1))},
    meta  => q{select(2, m:meta_get(k))},
    stats => q{(select(3, m:stats()) or {})[server]},
    flush => q{select(2, m:flush_all())},
    pipe  => q{pipe(m, k)},
);
my @cases = (
    ( map { [ $_, "SERVER_ERROR out of memory\r\n", 'SERVER_ERROR out of memory', 0 ] } qw( get gets list set cas incr touch pipe ) ),
    ( map { [ $_, "ERROR\r\n", 'ERROR', 0 ] } qw( get list set cas incr stats pipe ) ),
    ( map { [ $_, "CLIENT_ERROR bad command line format\r\n", 'CLIENT_ERROR bad command line format', 0 ] } qw( set touch list ) ),
    [ get   => "ERROR Too many open connections\r\n", 'ERROR Too many open connections', 0 ],
    [ get   => "VALUE KEY 0 2000\r\n@{[ 'x' x 2000 ]}\r\nEND\r\n", 'bad reply: value of 2000 bytes exceeds the limit of 1024', 0 ],
    [ stats => join( '', map {"STAT long$_ @{[ 'x' x 400 ]}\r\n"} 1 .. 9 ) . "END\r\n", 'bad reply: statistics too long', 0 ],
    [ get   => undef,             'closed',                      1 ],
    [ list  => undef,             'closed',                      1 ],
    [ set   => undef,             'closed',                      1 ],
    [ pipe  => undef,             'closed',                      1 ],
    [ get   => "VALUE other 0 1\r\n1\r\nEND\r\n", 'bad reply: unexpected key', 1 ],
    [ list  => "VALUE other 0 1\r\n1\r\nEND\r\n", 'bad reply: unexpected key', 1 ],
);

my $well = TestEnv::start_memcached();
my @servers;
for my $case (@cases) {
    my $reply = $case->[1];
    push @servers, LineServer->start(
        sub {
            my ($line) = @_;
            return "VERSION 1.6.18\r\n" if $line eq 'version';
            my ($key) = $line =~ /\A\w+ (\S+)/;
            return defined $reply ? $reply =~ s/KEY/$key/r : undef;
        }
    );
}
my $blocks = join '', map {
    my $list = GroupServers::lines( 'max_fails=1 fail_timeout=60s', $well, $servers[$_]->port );
    "upstream g$_ { zone g$_ 64k; lua_memcached_hash modula; $list }\n"
} 0 .. $#cases;

my $nginx = LiveNginx->start(
    http => qq{
        $blocks
        lua_socket_log_errors off;
        lua_memcached_max_value_size 1k;
        @{[ GroupServers::init(q{
            function pipe(m, k)
                m:init_pipeline()
                m:get(k)
                local results, err = m:commit_pipeline()
                return results and (results[1][3] or results[1][2]) or err
            end
        }) ]}
    },
    server => GroupServers::location(),
);

for my $n ( 0 .. $#cases ) {
    my ( $what, undef, $err, $disabled ) = @{ $cases[$n] };
    my $name = $servers[$n]->name;
    my $said = GroupServers::lua( $nginx, qq{
        local m, server = object("g$n"), "$name"
        local k = key_of(m, @{[ $servers[$n]->port ]})
        say($ask{$what}, m:server_of(k) ~= server)
    } );
    is( $said, "$err @{[ $disabled ? 'true' : 'false' ]}", "$what: $err" );
}
is( scalar( () = $nginx->log =~ /temporarily disabled/g ), scalar( grep { $_->[3] } @cases ), 'as many lines say that a server is disabled' );

done_testing();
