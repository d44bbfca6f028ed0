use strict;
use warnings;
use lib 't/lib';

use Test::More;

use ExampleConf;
use TestCerts;
use TestEnv;

my $certs = TestCerts::dir();
my %files = ( '/etc/ssl/certs/ca-certificates.crt' => "$certs/ca.pem" );
my $port  = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );

my $site = ExampleConf->start(
    'tls.conf',
    memcached => $port,
    replace   => { %files, 'memcached.example.com' => 'memcached.test' },
);
is $site->get('/get?key=nothing'), "200 not found\n", "over TLS, request $_" for 1 .. 3;
$site->ends_well;

$site = ExampleConf->start( 'tls.conf', memcached => $port, replace => \%files );
like $site->get('/get?key=nothing'), qr/\A502 /, 'a server that has another name is not asked';
my ($line) = grep {/does not match host/} $site->nginx->log_lines('error');
like $line, qr/lua ssl certificate does not match host "memcached\.example\.com", .*, memcached: 127\.0\.0\.1:$port\z/,
    'and the log says which it is';
ok $site->nginx->quit, 'ends';

$site = ExampleConf->start(
    'tls.conf',
    memcached => $port,
    replace   => {
        '/etc/ssl/certs/ca-certificates.crt' => "$certs/otherca.pem",
        'memcached.example.com'              => 'memcached.test',
    },
);
like $site->get('/get?key=nothing'), qr/\A502 /, 'nor one that nobody vouches for';
like join( "\n", $site->nginx->log_lines('error') ), qr/lua ssl certificate verify error: \(\d+: /, 'as the log says';
ok $site->nginx->quit, 'ends';
done_testing();
