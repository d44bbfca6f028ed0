use strict;
use warnings;
use lib 't/lib';

use File::Temp ();
use IO::Socket::INET;
use Test::More;

use TestEnv memcached => 0;

# scripts/demo: right answers, and what --keep leaves is stopped by the command it prints.

plan skip_all => 'it shows the module' if $ENV{TEST_NGINX_REFERENCE_LIB};

my $root   = TestEnv::root();
my $module = ( TestEnv::modules(1) )[-1];
my $dir    = File::Temp->newdir( 'demoXXXXXX', TMPDIR => 1 );
chmod 0755, "$dir";
local $ENV{TMPDIR} = "$dir";

# (exit status, what it said)
sub demo {
    my (@args) = @_;
    my $said = `'$root/scripts/demo' --module '$module' @args 2>&1`;
    return ( $? >> 8, $said );
}
my $left = sub { scalar( () = glob "$dir/memcached-demo.*" ) };

my ( $status, $said ) = demo();
is $status, 0, 'right answers' or diag $said;
like $said, qr/==> every answer was as expected\n/, 'as it says';
like $said, qr/\nWhat next: /, 'and what is next';
like $said, qr/: multi-get, a server is away: ok .*\n    \d+ of 30 values found\n/, 'a server of a group was stopped';
like $said, qr/\[warn\] .*upstream server temporarily disabled: /, '... which error.log tells';
is $left->(), 0, 'nothing is left';

( $status, $said ) = demo('--keep');
is $status, 0, 'with --keep';
my ($port) = $said =~ m{curl 'http://127\.0\.0\.1:(\d+)/get\?key=dog'};
my $socket = IO::Socket::INET->new("127.0.0.1:$port");
ok $socket, 'nginx is there';
close $socket if $socket;
my @pids = $said =~ /nginx \(process (\d+)\) and memcached \(process (\d+)\)/;
push @pids, split ' ', $1 if $said =~ /\(processes ([\d ]+)\)/;
my %distinct = map { $_ => 1 } @pids;
is scalar( keys %distinct ), 5, 'nginx and four memcacheds';
my ($stop) = $said =~ m{^    (sh \Q$dir\E/memcached-demo\.\w+/stop)$}m;
ok $stop, 'says how to stop it' or kill TERM => @pids;
is system($stop), 0, 'stops';
is $left->(), 0, '... and removes its files';
is kill( 0, @pids ), 0, '... and all processes';
done_testing();
