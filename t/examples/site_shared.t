use strict;
use warnings;
use lib 't/lib';

use Test::More;

use ExampleConf;
use TestEnv;

my $site = ExampleConf->start('shared.conf');
like $site->nginx->log, qr/shared connections: 2 in \S+\/nginx\.conf:\d+\n/, 'sharing is on';
is $site->get('/get?key=nothing'), "200 not found\n", 'a miss';
my $value = 'v' x 100_000;
is $site->get( '/file/one', method => 'PUT', body => $value ), "200 stored\n", 'stores';
is $site->get('/get?key=one'), "200 $value\n", 'a hit';
is $site->get('/get'), "200 ERROR\n", 'no key';

# Two connections for all who get, whoever many they are.
my $count = sub { ( ExampleConf::memcached("stats") =~ /STAT curr_connections (\d+)/ )[0] };
my $before = $count->();
my $client = bless { %{ $site->nginx }, port => $site->{port} }, 'LiveNginx';
$client->{pid} = undef;    # it is not this one's to end
my $clients = $client->load( '/get', 8, qr/./ );
select undef, undef, undef, 0.5;
cmp_ok $count->() - $before, '<=', 2, 'over two connections at most';
my ($right) = $client->end_load($clients);
cmp_ok $right, '>', 50, '... for many requests';
$site->ends_well(qw( error crit alert emerg ));
done_testing();
