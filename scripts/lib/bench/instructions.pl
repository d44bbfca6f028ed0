#!/usr/bin/perl
# scripts/bench --instructions: how many instructions one request takes in user space, by callgrind.
#
#   instructions.pl --port PORT --clients N --contestants 'CONTESTANT...'
#       --rows 'WORKLOAD:N:CONTESTANT,... ...' --log FILE NGINX ARGUMENT...
#
# Runs nginx (one process) under callgrind twice for each contestant of each row, with N and with 2N
# requests, and takes the difference: what the start, the connections and the compiling of Lua cost
# is in both. Unlike times, the counts do not depend on what else the machine does. Requests come
# from several clients at once, since what shared connections cost depends on how many wait.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use BenchResults;
use IO::Select;
use IO::Socket::INET;

my %option;
while ( @ARGV && $ARGV[0] =~ /^--(port|clients|contestants|rows|log)$/ ) {
    $option{$1} = $ARGV[1];
    splice @ARGV, 0, 2;
}
my @nginx = @ARGV;
my $child;
END { kill 'KILL', $child if $child }
local $SIG{TERM} = local $SIG{INT} = sub { exit 1 };

# complete ANSWER: whether all of it is there.
sub complete {
    my ($answer) = @_;
    my $end = index ${$answer}, "\r\n\r\n";
    return 0 if $end < 0;
    my $head = substr ${$answer}, 0, $end + 2;
    $head =~ m{^HTTP/1\.1 20[01] } or die 'answers ' . substr( $head, 0, 30 ) . "\n";
    return substr( ${$answer}, -5 ) eq "0\r\n\r\n" if $head =~ /^Transfer-Encoding: chunked\r$/mi;
    $head =~ /^Content-Length: (\d+)\r$/mi or die "an answer without its length\n";
    return length ${$answer} >= $end + 4 + $1;
}

# ask PATH, COUNT: so many requests, each connection's next one when the last was answered.
sub ask {
    my ( $path, $count ) = @_;
    my $request  = "GET /$path HTTP/1.1\r\nHost: localhost\r\n\r\n";
    my $sockets  = IO::Select->new;
    my $to_send  = $count;
    my %answer_of;
    for ( 1 .. $option{clients} ) {
        my $socket = IO::Socket::INET->new( PeerAddr => '127.0.0.1', PeerPort => $option{port} )
            or die "cannot connect to nginx: $!\n";
        $sockets->add($socket);
        syswrite $socket, $request;
        $to_send--;
    }
    while ( $sockets->count ) {
        my @ready = $sockets->can_read(60) or die "no answer within a minute\n";
        for my $socket (@ready) {
            my $answer = \( $answer_of{$socket} //= '' );
            sysread $socket, ${$answer}, 262_144, length ${$answer} or die "nginx closes a connection\n";
            next if !complete($answer);
            ${$answer} = '';
            if   ( $to_send-- > 0 ) { syswrite $socket, $request }
            else                    { $sockets->remove($socket); close $socket }
        }
    }
    return;
}

# instructions PATH, COUNT: of nginx's whole life with so many requests.
sub instructions {
    my ( $path, $count ) = @_;
    defined( $child = fork ) or die "fork: $!\n";
    if ( !$child ) {
        open STDERR, '>', $option{log} or die "$option{log}: $!\n";
        open STDOUT, '>&', \*STDERR or die "stdout: $!\n";
        exec 'valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null', @nginx or die "valgrind: $!\n";
    }
    for ( 1 .. 600 ) {
        last if IO::Socket::INET->new( PeerAddr => '127.0.0.1', PeerPort => $option{port} );
        waitpid( $child, 1 ) == 0 or die "nginx ends; see $option{log}\n";
        select undef, undef, undef, 0.1;
    }
    ask( $path, $count );
    kill 'TERM', $child;
    waitpid $child, 0;
    $child = undef;
    open my $log, '<', $option{log} or die "$option{log}: $!\n";
    my ($collected) = map { /Collected : (\d+)/ } <$log>;
    return $collected // die "callgrind says nothing; see $option{log}\n";
}

# per_request PATH, COUNT
sub per_request {
    my ( $path, $count ) = @_;
    return ( instructions( $path, 2 * $count ) - instructions( $path, $count ) ) / $count;
}

my @contestants = split ' ', $option{contestants};
local $| = 1;
print '| workload | ', join( ' | ', @LABEL{@contestants} ), " |\n|---|", '--:|' x @contestants, "\n";
for my $row ( split ' ', $option{rows} ) {
    my ( $workload, $count, $mine ) = split /:/, $row;
    my %takes_part = map { $_ => 1 } split /,/, $mine;
    print "| $TITLES{$workload}";
    for my $contestant (@contestants) {
        print ' | ', $takes_part{$contestant} ? sprintf '%.1fk', per_request( "$contestant/$workload", $count ) / 1000 : '';
    }
    print " |\n";
}
