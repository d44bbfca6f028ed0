#!/usr/bin/perl
# What scripts/bench stores in memcached before it measures, and whether everybody
# gives the right answers.
#
#   data.pl fill MEMCACHED_PORT [KIND...]
#   data.pl check HTTP_PORT MEMCACHED_PORT CONTESTANT/WORKLOAD...
#
# Keys and values follow the rules in contestants.lua. check asks each location once as it is
# measured and, where the contestant is Lua, twice at CONTESTANT/WORKLOAD/check, which
# answers a line KEY=VALUE for all that was got or stored, and has to choose other keys the
# second time. What was stored is asked of memcached itself, which must not have evicted
# anything.

use strict;
use warnings;
use IO::Socket::INET;

# Bytes of a value, and keys, of each kind.
my %kinds = (
    small          => [ 32,      100_000 ],
    medium         => [ 100,     200_000 ],
    huge           => [ 1048576, 300 ],
    'stored-small' => [ 32,      10_000 ],
    'stored-large' => [ 102400,  64 ],
);

# For each workload the kind of its keys, and how many of them one request asks for.
my %workloads = (
    get         => [ 'small',        1 ],
    hot         => [ 'small',        1 ],
    'get-10'    => [ 'small',        10 ],
    'multi-get' => [ 'medium',       100 ],
    set         => [ 'stored-small', 1 ],
    'set-100k'  => [ 'stored-large', 1 ],
    'get-1m'    => [ 'huge',         1 ],
    'pass-1m'   => [ 'huge',         1 ],
    'group-get' => [ 'small',        1 ],
    'group-multi-get' => [ 'medium', 100 ],
);

sub value {
    my ( $kind, $number ) = @_;
    my $size = $kinds{$kind}[0];
    return substr "$number " x ( 1 + $size / 7 ), 0, $size;
}

sub dial {
    my ($port) = @_;
    return IO::Socket::INET->new( PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10 )
        || die "cannot connect to port $port: $!\n";
}

# for_each MEMCACHED, KIND, COMMAND: sends what COMMAND makes of each number, which must be without
# a reply, and waits until memcached has done it all.
sub for_each {
    my ( $memcached, $kind, $command ) = @_;
    print {$memcached} $command->( 100_000 + $_ ) for 1 .. $kinds{$kind}[1];
    print {$memcached} "mn\r\n";
    $memcached->flush;
    my $line = <$memcached> // 'nothing';
    $line eq "MN\r\n" or die "memcached answers $line\n";
    return;
}

sub statistic {
    my ( $memcached, $name ) = @_;
    my $value;
    print {$memcached} "stats\r\n";
    while ( defined( my $line = <$memcached> ) ) {
        $value = $1 if $line =~ /^STAT $name (\d+)/;
        last if $line eq "END\r\n";
    }
    return $value // die "memcached has no statistic $name\n";
}

sub nothing_evicted {
    my ($memcached) = @_;
    statistic( $memcached, 'evictions' ) == 0 or die "memcached has too little memory for all values\n";
    return;
}

sub fill {
    my ( $port, @kinds ) = @_;
    my $memcached = dial($port);
    my $count     = 0;
    $memcached->autoflush(0);
    for my $kind ( @kinds ? @kinds : qw(small medium huge) ) {
        my $size = $kinds{$kind}[0];
        for_each( $memcached, $kind, sub { "set $kind-$_[0] 0 0 $size noreply\r\n" . value( $kind, @_ ) . "\r\n" } );
        $count += $kinds{$kind}[1];
    }
    $memcached->autoflush(1);
    nothing_evicted($memcached);
    my $items = statistic( $memcached, 'curr_items' );
    $items == $count or die "memcached has $items items, not $count\n";
    return;
}

# Nothing that an earlier run stored may pass for what this one stores.
sub forget {
    my ( $memcached, $kind ) = @_;
    for_each( $memcached, $kind, sub { "delete $kind-$_[0] noreply\r\n" } );
    return;
}

sub stored {
    my ( $memcached, $kind, $number ) = @_;
    print {$memcached} "get $kind-$number\r\n";
    my $line = <$memcached> // '';
    $line =~ /^VALUE \S+ \d+ (\d+)\r$/ or return 0;
    read( $memcached, my $data, $1 + 7 ) == $1 + 7 or return 0;
    return $data eq value( $kind, $number ) . "\r\nEND\r\n";
}

# http_get PORT, PATH: the body of an answer whose status is 200 or 201.
sub http_get {
    my ( $port, $path ) = @_;
    my $nginx = dial($port);
    print {$nginx} "GET /$path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    local $/ = undef;
    my ( $head, $body ) = split /\r\n\r\n/, <$nginx> // '', 2;
    $head =~ m{^HTTP/1.1 20[01] } or die "$path: answers " . ( split /\r\n/, $head )[0] . "\n";
    if ( $head =~ /^Transfer-Encoding: chunked/mi ) {
        my ( $chunks, $data ) = ( $body, '' );
        while ( $chunks =~ s/^([0-9a-fA-F]+)\r\n// and hex $1 ) {
            $data .= substr $chunks, 0, hex $1, '';
            $chunks =~ s/^\r\n//;
        }
        $body = $data;
    }
    return $body;
}

# check_one HTTP_PORT, MEMCACHED, PATH: its answer as it is measured.
sub check_one {
    my ( $http_port, $memcached, $path ) = @_;
    my ( $contestant, $workload ) = split m{/}, $path;
    my ($kind)   = @{ $workloads{$workload} };
    my $answer   = http_get( $http_port, $path );
    my ($number) = $answer =~ /^(1\d{5}) /;
    my $right =
          $contestant eq 'empty'   ? $answer eq ''
        : $kind =~ /^stored/       ? $answer eq "STORED\r\n"
        : $workload =~ /multi-get/ ? $answer eq '100 values'
        : $workload eq 'get-1m'    ? $answer eq '1048576 bytes'
        :                            $number && $answer eq value( $kind, $number );
    $right or die "$path: not the right answer: " . substr( $answer, 0, 100 ) . "\n";
    return;
}

# check_keys HTTP_PORT, MEMCACHED, PATH: how many keys PATH/check asks for, in two requests.
sub check_keys {
    my ( $http_port, $memcached, $path ) = @_;
    my ($kind) = @{ $workloads{ ( split m{/}, $path )[1] } };
    my %seen;
    for ( 1, 2 ) {
        my $answer = http_get( $http_port, "$path/check" );
        while ( $answer =~ s/^$kind-(\d+)=([^\n]*)\n// ) {
            my ( $number, $value ) = ( $1, $2 );
            $seen{$number} = 1;
            $value eq value( $kind, $number ) or die "$path: wrong value of $number\n";
            $kind !~ /^stored/ || stored( $memcached, $kind, $number ) or die "$path: $number is not stored\n";
        }
    }
    return scalar keys %seen;
}

sub check {
    my ( $http_port, $memcached_port, @paths ) = @_;
    my $memcached = dial($memcached_port);
    for my $path (@paths) {
        my ( $contestant, $workload ) = split m{/}, $path;
        my ( $kind, $count ) = @{ $workloads{$workload} };
        my $sets = $kind =~ /^stored/;
        forget( $memcached, $kind ) if $sets;
        check_one( $http_port, $memcached, $path );
        if ( $contestant !~ /^(?:module|lua|shared|client|group|group-shared|by-hand|sharded|twemproxy)$/ ) {
            !$sets || stored( $memcached, $kind, 100_001 ) or die "$path: not stored\n";
            next;
        }
        forget( $memcached, $kind ) if $sets;
        my $expected = $workload eq 'hot' ? 1 : 2 * $count;
        my $keys = check_keys( $http_port, $memcached, $path );
        $keys == $expected or die "$path: asks for $keys keys in two requests, not $expected\n";
    }
    nothing_evicted($memcached);
    return;
}

my %actions = ( fill => \&fill, check => \&check );
my $action = $actions{ shift // '' } or die "usage: see the head of $0\n";
$action->(@ARGV);
