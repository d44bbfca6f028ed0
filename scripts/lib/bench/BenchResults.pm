package BenchResults;

# What scripts/bench measured, read for its tables and its picture.
#
# A line for each contestant in each round, fields separated by tabs: workload, concurrent requests,
# contestant, round, requests, duration, latency p50 and p99 (microseconds), requests that nginx had,
# CPU of its worker for them (nanoseconds) and how that divides into user and system (clock ticks),
# memcached's CPU (nanoseconds), requests and duration of the big values beside it, CPU of a proxy in
# between (nanoseconds).

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(@CONTESTANTS %TITLES %LABEL base_of figure_of options read_results rows_of);

# What workloads and contestants are called, and the colours of the latter.
our %TITLES = (
    'get'       => 'get 32 B',
    'get-10'    => '10 sequential gets',
    'multi-get' => 'multi-get 100 × 100 B',
    'set'       => 'set 32 B',
    'set-100k'  => 'set 100 KB',
    'get-1m'    => 'get 1 MB',
    'pass-1m'   => 'get 1 MB, sent to the client',
    'hot'       => 'one hot key',
    'mixed'     => 'small gets beside big values',
    'group-get' => 'get 32 B, five servers',
    'group-multi-get' => 'multi-get 100 × 100 B, five servers',
);
our @CONTESTANTS = (
    [ module         => 'this module, private', '#ea580c' ],
    [ shared         => 'this module, shared',  '#6d28d9' ],
    [ client         => 'a client, shared',     '#db2777' ],
    [ lua            => 'pure-Lua library',     '#78716c' ],
    [ group          => 'a group, private',     '#b45309' ],
    [ 'group-shared' => 'a group, shared',      '#1d4ed8' ],
    [ 'by-hand'      => 'objects of five servers', '#0e7490' ],
    [ sharded        => 'pure-Lua library, sharded in Lua', '#57534e' ],
    [ twemproxy      => 'twemproxy in between, its CPU included', '#be123c' ],
    [ memcached_pass => 'memcached_pass',       '#15803d' ],
    [ memc           => 'memc module',          '#0ea5e9' ],
    [ wait           => 'handler that waits',   '#a8a29e' ],
    [ empty          => 'empty handler',        '#d4d4d8' ],
);
our %LABEL = map { $_->[0] => $_->[1] } @CONTESTANTS;

# The contestant that ratios of a workload are to, and what of it is compared in the first place.
sub base_of   { return $_[0] eq 'hot'   ? 'empty' : $_[0] =~ /^group/ ? 'module' : 'lua' }
sub figure_of { return $_[0] eq 'mixed' ? 'p99'   : 'cpu' }

# options: those of @ARGV, which keeps the file with the results.
sub options {
    my %option = ( title => '', multiplex => 2 );
    while ( @ARGV && $ARGV[0] =~ /^--(title|multiplex)$/ ) {
        $option{$1} = $ARGV[1];
        splice @ARGV, 0, 2;
    }
    return %option;
}

sub ratio { my ( $x, $y ) = @_; return $y ? $x / $y : 0 }

sub median {
    my @sorted = sort { $a <=> $b } @_;
    my $middle = int @sorted / 2;
    return @sorted % 2 ? $sorted[$middle] : ( $sorted[ $middle - 1 ] + $sorted[$middle] ) / 2;
}

# read_results: from <> to { WORKLOAD => { C => { CONTESTANT => [ the rounds' figures ] } } } and the
# workloads in their order. Times are in milliseconds, CPU in microseconds per request.
sub read_results {
    my ( %rounds, @workloads );
    while (<>) {
        chomp;
        my (
            $workload, $c,   $contestant, $round,  $requests,  $duration,     $p50, $p99,
            $served,   $cpu, $user,       $system, $memcached, $big_requests, $big_duration, $proxy
        ) = split /\t/;
        push @workloads, $workload if !$rounds{$workload};
        $rounds{$workload}{$c}{$contestant}[ $round - 1 ] = {
            rate      => $requests * 1e6 / $duration,
            p50       => $p50 / 1000,
            p99       => $p99 / 1000,
            cpu       => ratio( ( $cpu + ( $contestant eq 'twemproxy' ? $proxy : 0 ) ) / 1000, $served ),
            worker    => ratio( $cpu / 1000, $served ),
            memcached => ratio( $memcached / 1000, $served ),
            user      => $user,
            system    => $system,
            big       => $big_requests * 1e6 / $big_duration,
        };
    }
    return ( \%rounds, @workloads );
}

# kernel_share ROUNDS: of the worker's CPU, over all rounds, because each has few ticks.
sub kernel_share {
    my ($rounds) = @_;
    my ( $user, $system ) = ( 0, 0 );
    for (@$rounds) { $user += $_->{user}; $system += $_->{system} }
    return ratio( $system, $user + $system );
}

# rows_of ROUNDS, WORKLOAD...: in the order they are shown, one for each contestant at each point,
# with the medians of the rounds. `of` has the least, the median and the largest of the ratios of
# the rounds, for each thing that was measured.
sub rows_of {
    my ( $all, @workloads ) = @_;
    my @names = qw(cpu worker rate p50 p99 big);
    my @rows;
    for my $workload (@workloads) {
        for my $c ( sort { $a <=> $b } keys %{ $all->{$workload} } ) {
            my $point = $all->{$workload}{$c};
            my $base  = $point->{ base_of($workload) };
            for my $name ( map { $_->[0] } @CONTESTANTS ) {
                my $mine = $point->{$name} or next;
                my %of;
                for my $what (@names) {
                    my @ratios = sort { $a <=> $b } map { ratio( $mine->[$_]{$what}, $base->[$_]{$what} ) } 0 .. $#$base;
                    $of{$what} = { min => $ratios[0], median => median(@ratios), max => $ratios[-1] };
                }
                push @rows, {
                    workload => $workload, c => $c, name => $name, of => \%of,
                    is_base => $name eq base_of($workload),
                    main    => $of{ figure_of($workload) },
                    kernel  => kernel_share($mine),
                    map { my $what = $_; ( $what => median( map { $_->{$what} } @$mine ) ) } @names, 'memcached',
                };
            }
        }
    }
    return @rows;
}

1;
