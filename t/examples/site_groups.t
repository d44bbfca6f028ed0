use strict;
use warnings;
use lib 't/lib';

use Test::More;

use ExampleConf;
use TestEnv;

my ( $first, @others ) = map { TestEnv::start_memcached() } 1 .. 3;
my $site = ExampleConf->start(
    'groups.conf',
    memcached => $first,
    replace   => {
        '127.0.0.1:11211' => "127.0.0.1:$first",
        '127.0.0.1:11212' => "127.0.0.1:$others[0]",
        '127.0.0.1:11213' => "127.0.0.1:$others[1]",
    },
);

# The answer and its header X-Cache.
sub page {
    my ( $status, $body, $headers ) = $site->ask("/page/$_[0]");
    return join ' ', $status, $headers->{'x-cache'} // 'HIT', $body;
}
my @ways = map { ( page($_), page($_) ) } 1 .. 12;
is_deeply \@ways, [ map { ( "200 MISS page /page/$_\n", "200 HIT page /page/$_\n" ) } 1 .. 12 ],
    'memcached_pass finds what Lua has stored';
is $site->get('/visits/1'), "200 1\n", 'a visit';
is $site->get('/visits/1'), "200 2\n", 'another';
is $site->get('/several?keys=a,b,c,d,e,f'), join( '', '200 ', map {"$_: value of $_\n"} 'a' .. 'f' ), 'a list of keys';
my %homes;
push @{ $homes{ $site->get("/where?key=/page/$_") } }, $_ for 1 .. 12;
is_deeply [ sort keys %homes ], [ sort map {"200 127.0.0.1:$_\n"} $first, @others ], 'each server has keys';

# One is away.
my $gone = $others[0];
my ($counter) = grep { $site->get("/where?key=visits%3A%2Fvisits%2F$_") eq "200 127.0.0.1:$gone\n" } 2 .. 1000;
is $site->get("/visits/$counter"), "200 1\n", 'a counter of that server';
TestEnv::stop_memcached($gone);
my @keys = @{ $homes{"200 127.0.0.1:$gone\n"} };
is page( $keys[0] ), "200 MISS page /page/$keys[0]\n", 'its page is made anew';
page($_) for @keys;
is page($_), "200 HIT page /page/$_\n", "page $_ is found again" for @keys;
is page($_), "200 HIT page /page/$_\n", "page $_ of another server stays" for map {@$_} grep { $_ != $homes{"200 127.0.0.1:$gone\n"} } values %homes;
is $site->get("/visits/$counter"), "503 not counted\n", 'its counter is not counted elsewhere' for 1 .. 4;
like $site->nginx->log, qr/\[warn\].*not counted: no live upstreams/, '... in the end at once';
is $site->get('/several?keys=a,b,c,d,e,f'), join( '', '200 ', map {"$_: value of $_\n"} 'a' .. 'f' ), 'a list of keys';
$site->ends_well(qw( crit alert emerg ));
done_testing();
