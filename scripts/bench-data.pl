#!/usr/bin/perl
# What scripts/bench stores in memcached before it measures, and whether everybody
# gives the right answers.
#
#   bench-data.pl fill MEMCACHED_PORT
#   bench-data.pl check HTTP_PORT MEMCACHED_PORT CONTESTANT/WORKLOAD...
#
# The value of a key is the key, padded with dots to the size of its kind (bench.lua
# knows the same rule). check asks each location once as it is measured and, where the
# contestant is Lua, once at CONTESTANT/WORKLOAD/check, which also answers a line
# KEY=VALUE for all that was got or stored. What was stored is asked of memcached itself.

use strict;
use warnings;
use IO::Socket::INET;

# Bytes of a value, and keys, of each kind.
my %kinds = (
    small          => [ 32,      1000 ],
    medium         => [ 100,     1000 ],
    huge           => [ 1048576, 4 ],
    'stored-small' => [ 32,      1000 ],
    'stored-large' => [ 102400,  16 ],
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
);

sub value {
    my ($key) = @_;
    my ($kind) = $key =~ /^(.+)-[0-9]+$/ or return '';
    my $spec = $kinds{$kind} or return '';
    return $key . '.' x ( $spec->[0] - length $key );
}

sub dial {
    my ($port) = @_;
    return IO::Socket::INET->new( PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10 )
        || die "cannot connect to port $port: $!\n";
}

sub expect {
    my ( $memcached, $command, $reply ) = @_;
    print {$memcached} $command;
    my $line = <$memcached>;
    defined $line && $line =~ /^$reply\r\n\z/ or die 'memcached answers ' . ( $line // 'nothing' ) . "\n";
    return $line;
}

sub fill {
    my $memcached = dial(shift);
    for my $kind (qw(small medium huge)) {
        for my $i ( 1 .. $kinds{$kind}[1] ) {
            my $value = value("$kind-$i");
            expect( $memcached, "set $kind-$i 0 0 " . length($value) . "\r\n$value\r\n", 'STORED' );
        }
    }
    return;
}

# Nothing that an earlier run stored may pass for what this one stores.
sub forget {
    my ( $memcached, $kind ) = @_;
    expect( $memcached, "delete $kind-$_\r\n", '(?:DELETED|NOT_FOUND)' ) for 1 .. $kinds{$kind}[1];
    return;
}

sub stored {
    my ( $memcached, $key ) = @_;
    print {$memcached} "get $key\r\n";
    my $line = <$memcached> // '';
    $line =~ /^VALUE \S+ \d+ (\d+)\r$/ or return 0;
    read( $memcached, my $data, $1 + 7 ) == $1 + 7 or return 0;
    return $data eq value($key) . "\r\nEND\r\n";
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

sub check {
    my ( $http_port, $memcached_port, @paths ) = @_;
    my $memcached = dial($memcached_port);
    for my $path (@paths) {
        my ( $contestant, $workload ) = split m{/}, $path;
        my ( $kind, $count ) = @{ $workloads{$workload} };
        my $sets = $kind =~ /^stored/;
        forget( $memcached, $kind ) if $sets;

        my $answer = http_get( $http_port, $path );
        my ($key) = $answer =~ /^($kind-\d+)\.*\z/;
        my $right =
              $contestant eq 'empty'   ? $answer eq ''
            : $sets                    ? $answer eq "STORED\r\n"
            : $workload eq 'multi-get' ? $answer eq '100 values'
            : $workload eq 'get-1m'    ? $answer eq '1048576 bytes'
            :                            $key && $answer eq value($key);
        $right or die "$path: not the right answer: " . substr( $answer, 0, 100 ) . "\n";
        if ( $contestant !~ /^(?:module|lua|shared)$/ ) {
            !$sets || stored( $memcached, "$kind-1" ) or die "$path: not stored\n";
            next;
        }

        forget( $memcached, $kind ) if $sets;
        $answer = http_get( $http_port, "$path/check" );
        my %seen;
        while ( $answer =~ s/^($kind-\d+)=([^\n]*)\n// ) {
            $seen{$1} = 1;
            $2 eq value($1) or die "$path: wrong value of $1\n";
            !$sets || stored( $memcached, $1 ) or die "$path: $1 is not stored\n";
        }
        keys %seen == $count or die "$path: has not $count keys\n";
    }
    return;
}

my %actions = ( fill => \&fill, check => \&check );
my $action = $actions{ shift // '' } or die "usage: see the head of $0\n";
$action->(@ARGV);
