use strict;
use warnings;
use lib 't/lib';

use Test::More;
use Time::HiRes qw( sleep time );

use ExampleConf;
use TestEnv;

my $app = q{ server { listen @APP@; location / { return 200 "served\n"; } } };
# Shorter, four seconds.
my %shorter = ( 'limit, seconds = 5, 10' => 'limit, seconds = 5, 4' );
my $site = ExampleConf->start( 'rate-limit.conf', http => $app, replace => \%shorter );

my $begin = time;
is $site->get('/'), "200 served\n", "request $_" for 1 .. 5;
my ( $status, undef, $headers ) = $site->ask('/');
is $status, 429, 'the sixth is too many';
like $headers->{'retry-after'}, qr/\A[1-4]\z/, 'and told when to come again';
sleep 0.05 while time < $begin + 5.2;
is $site->get('/'), "200 served\n", 'when the time is over, the count begins anew';
$site->ends_well;

$site = ExampleConf->start( 'rate-limit.conf', http => $app, memcached => $ENV{TEST_NGINX_UNUSED_PORT} );
is $site->get('/'), "200 served\n", 'all pass without memcached' for 1 .. 7;
like join( "\n", $site->nginx->log_lines('warn') ), qr/no rate limit: connection refused/, 'which is logged';
ok $site->nginx->quit, 'ends';
done_testing();
