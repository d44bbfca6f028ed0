use strict;
use warnings;
use lib 't/lib';

use POSIX ();
use Test::More;
use Time::HiRes qw( time );

use ExampleConf;
use TestEnv;

my $site = ExampleConf->start('lock.conf');

# Five at once: one of them makes the report.
my $at_once = sub {
    my @readers = map {
        my $pid = open my $reader, '-|';
        defined $pid or die "fork: $!";
        if ( !$pid ) {
            print $site->get('/report');
            close STDOUT;
            POSIX::_exit(0);
        }
        $reader;
    } 1 .. shift;
    return map { my $text = do { local $/; readline $_ }; close $_; $text } @readers;
};
my $from    = time;
my @answers = $at_once->(5);
cmp_ok time - $from, '<', 2, 'nobody waits longer than that takes';
is scalar( grep {/\A200 new: made at [\d.]+\n\z/} @answers ), 1, 'one makes it' or diag explain \@answers;
is scalar( grep {/\A200 cached: made at [\d.]+\n\z/} @answers ), 4, 'the others get it';
my %made = map { /made at ([\d.]+)/ ? ( $1 => 1 ) : () } @answers;
is scalar( keys %made ), 1, 'all the same';
like $site->get('/report'), qr/\A200 cached: /, 'and who comes later';
is ExampleConf::memcached("get lock%3Areport"), "END\r\n", 'the lock is released';

# A lock that is another's is waited for, and not released.
ExampleConf::memcached("delete report");
ExampleConf::memcached("set lock%3Areport 0 1 5\r\nother");
$from = time;
like $site->get('/report'), qr/\A200 new: /, 'the lock of one that died';
cmp_ok time - $from, '>', 0.5, '... is waited for until it ends';
$site->ends_well;

$site = ExampleConf->start( 'lock.conf', memcached => $ENV{TEST_NGINX_UNUSED_PORT} );
like $site->get('/report'), qr/\A200 new: /, 'without memcached each makes it';
like join( "\n", $site->nginx->log_lines('warn') ), qr/report without a lock: connection refused/, 'which is logged';
ok $site->nginx->quit, 'ends';
done_testing();
