#!/usr/bin/perl
# The result of scripts/bench: Markdown tables on stdout.
#
#   report.pl [--title TEXT] [--multiplex N] RESULTS

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use BenchResults;

my %option = options();
my @rows   = rows_of( read_results() );

# spread OF: a median with the least and the largest.
sub spread {
    my ($of) = @_;
    return sprintf '%.2f (%.2f–%.2f)', @$of{qw(median min max)};
}

sub percent { return sprintf '%.0f %%', 100 * $_[0] }

# main_table HEAD, CELL, ROWS: a row for each point, a column for each contestant.
sub main_table {
    my ( $head, $cell, @mine ) = @_;
    return if !@mine;
    my %shown   = map { $_->{name} => 1 } @mine;
    my @columns = grep { $shown{$_} } map { $_->[0] } @CONTESTANTS;
    print "$head\n\n| workload | c | ", join( ' | ', @LABEL{@columns} ), " |\n", '|---|--:|', '---|' x @columns, "\n";
    my ( %cells, @points );
    for (@mine) {
        my $point = "$TITLES{ $_->{workload} } | $_->{c}";
        push @points, $point if !$cells{$point};
        my $text = $cell->($_);
        $text =~ s/^(\S+)/**$1**/ if $_->{name} =~ /^(?:module|shared|client|group|group-shared)$/;
        $cells{$point}{ $_->{name} } = $text;
    }
    for my $point (@points) {
        print "| $point | ", join( ' | ', map { $_ // '' } @{ $cells{$point} }{@columns} ), " |\n";
    }
    print "\n";
    return;
}

sub cpu_cell {
    my ($row) = @_;
    my $of = $row->{is_base} ? sprintf '1 = %.1f µs', $row->{cpu} : spread( $row->{of}{cpu} );
    $of .= sprintf ', the worker alone %.2f', $row->{of}{worker}{median} if $row->{cpu} != $row->{worker};
    return "$of, " . percent( $row->{kernel} );
}

# ratio_cell NAME, FORMAT: for a thing that was measured, the base's own in FORMAT.
sub ratio_cell {
    my ( $name, $format ) = @_;
    return sub {
        my ($row) = @_;
        return $row->{is_base} ? sprintf "1 = $format", $row->{$name} : spread( $row->{of}{$name} );
    };
}

print <<"TEXT";
$option{title}.

Everything is a ratio of the same round: the median of the rounds, in brackets the least and the
largest. c: concurrent requests. Private: a connection of the request's own; shared:
lua_memcached_multiplex $option{multiplex}.

TEXT
my @times = grep { figure_of( $_->{workload} ) eq 'cpu' } @rows;
main_table( "**CPU time of the worker per request**, pure-Lua library = 1, and the kernel's share of it.\n**Lower is better.**",
    \&cpu_cell, grep { base_of( $_->{workload} ) eq 'lua' } @times );
main_table( "**CPU time of the worker per request for keys in five servers**, with one server over private connections = 1.\n"
      . '**Lower is better.**',
    \&cpu_cell, grep { base_of( $_->{workload} ) eq 'module' } @times );
main_table( "**CPU time of the worker per request with one hot key**, which all requests get: equal gets are sent once\n"
      . 'on shared connections. The handler that does nothing = 1. **Lower is better.**',
    \&cpu_cell, grep { base_of( $_->{workload} ) eq 'empty' } @times );
main_table( "**Requests per second**, pure-Lua library (one hot key: the empty handler; five servers: one server) = 1. Where the worker is not\n"
      . 'busy all the time, they say more about memcached and the load generator. **Higher is better.**',
    ratio_cell( 'rate', '%.0f' ), @times );
main_table( "**Latency p99 of small gets** while the same contestant gets 1 MB and sets 100 KB, pure-Lua library = 1.\n"
      . '**Lower is better.**',
    ratio_cell( 'p99', '%.2f ms' ), grep { figure_of( $_->{workload} ) eq 'p99' } @rows );

if ( my @mixed = grep { $_->{workload} eq 'mixed' } @rows ) {
    print <<'TEXT';
The same in full. The load of big values is limited, so that everyone gets about as many of them.

| c | | small gets/s | ratio (higher is better) | p50, ms | ratio (lower is better) | p99, ms | ratio (lower is better) | big values/s | ratio (higher is better) |
|--:|---|--:|---|--:|---|--:|---|--:|---|
TEXT
    for (@mixed) {
        printf "| %d | %s | %.0f | %s | %.2f | %s | %.2f | %s | %.0f | %s |\n", $_->{c}, $LABEL{ $_->{name} },
            $_->{rate}, spread( $_->{of}{rate} ), $_->{p50}, spread( $_->{of}{p50} ), $_->{p99}, spread( $_->{of}{p99} ),
            $_->{big}, spread( $_->{of}{big} );
    }
    print "\n";
}

exit 0 if !@times;
print <<'TEXT';
**CPU and latency.** Latency ratios are to the pure-Lua library (one hot key: to the empty handler; five
servers: to one);
CPU time and latency: **lower is better**. What is not a ratio says more about the machine than
about the contestants.

| workload | c | | worker CPU, µs per request | kernel's share | memcached CPU, µs per request | requests/s | p50, ms | ratio | p99, ms | ratio |
|---|--:|---|--:|--:|--:|--:|--:|---|--:|---|
TEXT
for (@times) {
    printf "| %s | %d | %s | %.1f | %s | %s | %.0f | %.3f | %s | %.3f | %s |\n", $TITLES{ $_->{workload} }, $_->{c},
        $LABEL{ $_->{name} }, $_->{cpu}, percent( $_->{kernel} ),
        $_->{name} =~ /^(?:empty|wait)$/ ? '–' : ( sprintf '%.1f', $_->{memcached} ),
        $_->{rate}, $_->{p50}, spread( $_->{of}{p50} ), $_->{p99}, spread( $_->{of}{p99} );
}
