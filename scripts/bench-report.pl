#!/usr/bin/perl
# The result of scripts/bench: Markdown tables on stdout and, with --svg FILE, a picture.
#
#   bench-report.pl [--svg FILE] [--title TEXT] [--multiplex N] --ticks N RESULTS
#
# RESULTS has a line for each contestant in each round, fields separated by tabs: workload,
# concurrent requests, contestant, round, requests, duration, latency p50 and p99
# (microseconds), CPU of nginx's worker and of memcached (clock ticks, N a second), requests
# and duration of the big values beside it.

use strict;
use warnings;

my %option = ( ticks => 100, title => '', multiplex => 2 );
while ( @ARGV && $ARGV[0] =~ /^--(svg|title|multiplex|ticks)$/ ) {
    $option{$1} = $ARGV[1];
    splice @ARGV, 0, 2;
}

# What workloads and contestants are called, and the colours of the latter.
my %titles = (
    'get'       => 'get 32 B',
    'get-10'    => '10 sequential gets',
    'multi-get' => 'multi-get 100 × 100 B',
    'set'       => 'set 32 B',
    'set-100k'  => 'set 100 KB',
    'get-1m'    => 'get 1 MB',
    'pass-1m'   => 'get 1 MB, sent to the client',
    'hot'       => 'one hot key',
    'mixed'     => 'small gets beside big values',
);
my @contestants = (
    [ module         => 'this module, private',              '#ea580c' ],
    [ shared         => 'this module, shared',               '#6d28d9' ],
    [ lua            => 'pure-Lua library',                  '#78716c' ],
    [ memcached_pass => 'memcached_pass',                    '#15803d' ],
    [ memc           => 'memc module',                       '#0ea5e9' ],
    [ wait           => 'handler that waits',                '#a8a29e' ],
    [ empty          => 'empty handler',                     '#d4d4d8' ],
);
my %label  = map { $_->[0] => $_->[1] } @contestants;
my %colour = map { $_->[0] => $_->[2] } @contestants;

# The contestant that ratios of a workload are to, and what of it is compared in the first place.
sub base_of   { return $_[0] eq 'hot'   ? 'empty' : 'lua' }
sub figure_of { return $_[0] eq 'mixed' ? 'p99'   : 'rate' }

# $rounds{workload}{c}{contestant}[round - 1]
my ( %rounds, @workloads );
while (<>) {
    chomp;
    my ( $workload, $c, $contestant, $round, $requests, $duration, $p50, $p99, $worker, $memcached, @big ) = split /\t/;
    push @workloads, $workload if !$rounds{$workload};
    $rounds{$workload}{$c}{$contestant}[ $round - 1 ] = {
        requests  => $requests,
        rate      => $requests * 1e6 / $duration,
        p50       => $p50 / 1000,
        p99       => $p99 / 1000,
        worker    => $worker / $option{ticks},
        memcached => $memcached / $option{ticks},
        big       => @big ? $big[0] * 1e6 / $big[1] : 0,
    };
}

sub median {
    my @sorted = sort { $a <=> $b } @_;
    my $middle = int @sorted / 2;
    return @sorted % 2 ? $sorted[$middle] : ( $sorted[ $middle - 1 ] + $sorted[$middle] ) / 2;
}

sub ratio { my ( $x, $y ) = @_; return $y ? $x / $y : 0 }

# per_request ROUNDS, NAME: microseconds of CPU, over all rounds.
sub per_request {
    my ( $rounds, $name ) = @_;
    my ( $cpu, $requests ) = ( 0, 0 );
    for (@$rounds) { $cpu += $_->{$name}; $requests += $_->{requests} }
    return 1e6 * ratio( $cpu, $requests );
}

# In the order they are shown: one row for each contestant at each point. `of` has the least,
# the median and the largest of the ratios of the rounds, for each thing that was measured.
my @rows;
for my $workload (@workloads) {
    for my $c ( sort { $a <=> $b } keys %{ $rounds{$workload} } ) {
        my $point = $rounds{$workload}{$c};
        my $base  = $point->{ base_of($workload) };
        for my $name ( map { $_->[0] } @contestants ) {
            my $mine = $point->{$name} or next;
            my %of;
            for my $what (qw(rate p50 p99 big)) {
                my @ratios = sort { $a <=> $b } map { ratio( $mine->[$_]{$what}, $base->[$_]{$what} ) } 0 .. $#$base;
                $of{$what} = { min => $ratios[0], median => median(@ratios), max => $ratios[-1] };
            }
            push @rows, {
                workload => $workload, c => $c, name => $name, of => \%of,
                is_base => $name eq base_of($workload),
                main => $of{ figure_of($workload) },
                ( map { my $what = $_; ( $what => median( map { $_->{$what} } @$mine ) ) } qw(rate p50 p99 big) ),
                ( map { $_ => per_request( $mine, $_ ) } qw(worker memcached) ),
            };
        }
    }
}

# ---- tables ----------------------------------------------------------------

# spread OF: a median with the least and the largest.
sub spread {
    my ($of) = @_;
    return sprintf '%.2f (%.2f–%.2f)', @$of{qw(median min max)};
}

# main_table HEAD, ROWS: a row for each point, a column for each contestant but the base.
sub main_table {
    my ( $head, @mine ) = @_;
    return if !@mine;
    my %shown   = map { $_->{name} => 1 } grep { !$_->{is_base} } @mine;
    my @columns = grep { $shown{$_} } map { $_->[0] } @contestants;
    print "$head\n\n| workload | c | ", join( ' | ', @label{@columns} ), " |\n", '|---|--:|', '---|' x @columns, "\n";
    my ( %cells, @points );
    for (@mine) {
        my $point = "$titles{ $_->{workload} } | $_->{c}";
        push @points, $point if !$cells{$point};
        my $cell = spread( $_->{main} );
        $cell =~ s/^(\S+)/**$1**/ if $_->{name} =~ /^(?:module|shared)$/;
        $cells{$point}{ $_->{name} } = $cell;
    }
    for my $point (@points) {
        print "| $point | ", join( ' | ', map { $_ // '' } @{ $cells{$point} }{@columns} ), " |\n";
    }
    print "\n";
    return;
}

print <<"TEXT";
$option{title}. Everything is a ratio of the same round: the median of the rounds, in brackets the
least and the largest. c: concurrent requests. Private: a connection of the request's own; shared:
lua_memcached_multiplex $option{multiplex}.

TEXT
main_table( "**Requests per second**, pure-Lua library = 1. **Higher is better.**",
    grep { figure_of( $_->{workload} ) eq 'rate' && base_of( $_->{workload} ) eq 'lua' } @rows );
main_table( "**Requests per second with one hot key**, as share of the handler that does nothing (= 1).\n**Higher is better.**",
    grep { base_of( $_->{workload} ) eq 'empty' } @rows );
main_table( "**Latency p99 of small gets** while the same contestant gets 1 MB and sets 100 KB, pure-Lua library = 1.\n"
      . '**Lower is better.**',
    grep { figure_of( $_->{workload} ) eq 'p99' } @rows );

if ( my @mixed = grep { $_->{workload} eq 'mixed' } @rows ) {
    print <<'TEXT';
The same in full. The load of big values is limited, so that everyone gets about as many of them.

| c | | small gets/s | ratio (higher is better) | p50, ms | ratio (lower is better) | p99, ms | ratio (lower is better) | big values/s | ratio (higher is better) |
|--:|---|--:|---|--:|---|--:|---|--:|---|
TEXT
    for (@mixed) {
        printf "| %d | %s | %.0f | %s | %.2f | %s | %.2f | %s | %.0f | %s |\n", $_->{c}, $label{ $_->{name} },
            $_->{rate}, spread( $_->{of}{rate} ), $_->{p50}, spread( $_->{of}{p50} ), $_->{p99}, spread( $_->{of}{p99} ),
            $_->{big}, spread( $_->{of}{big} );
    }
    print "\n";
}

if ( my @others = grep { $_->{workload} ne 'mixed' } @rows ) {
    print <<'TEXT';
**Latency and CPU.** Latency ratios are to the pure-Lua library (one hot key: to the empty handler);
latency and CPU time: **lower is better**. CPU time is user and system, over all rounds. What is not
a ratio says more about the machine than about the contestants.

| workload | c | | requests/s | p50, ms | ratio | p99, ms | ratio | worker CPU, µs per request | memcached CPU, µs per request |
|---|--:|---|--:|--:|---|--:|---|--:|--:|
TEXT
    for (@others) {
        printf "| %s | %d | %s | %.0f | %.3f | %s | %.3f | %s | %.1f | %s |\n", $titles{ $_->{workload} }, $_->{c},
            $label{ $_->{name} }, $_->{rate}, $_->{p50}, spread( $_->{of}{p50} ), $_->{p99}, spread( $_->{of}{p99} ),
            $_->{worker}, $_->{name} =~ /^(?:empty|wait)$/ ? '–' : sprintf '%.1f', $_->{memcached};
    }
}

# ---- picture ---------------------------------------------------------------

exit 0 if !defined $option{svg};

# One panel for each workload; in it a group of bars for each number of concurrent requests.
# A bar is the median, the line on it reaches from the least to the largest. Two panels are
# side by side, unless one has so many bars that it needs the whole width. The background is
# opaque, so that the page behind it may be dark.
my ( $width,  $margin )                     = ( 900, 16 );
my ( $header, $panel_height, $plot_height ) = ( 128, 212, 132 );
my ( $left,   $top )                        = ( 34, 42 );
my ( $ink,    $faint, $warning )            = ( '#262626', '#57534e', '#b91c1c' );
my $svg = '';

sub text {
    my ( $x, $y, $text, $more ) = @_;
    $text =~ s/&/&amp;/g;
    $text =~ s/</&lt;/g;
    $svg .= sprintf qq{<text x="%.1f" y="%.1f" %s>%s</text>\n}, $x, $y, $more // '', $text;
    return;
}

sub line {
    my ( $x1, $y1, $x2, $y2, $stroke, $more ) = @_;
    $svg .= sprintf qq{<path d="M%.1f %.1fL%.1f %.1f" stroke="%s" %s/>\n}, $x1, $y1, $x2, $y2, $stroke, $more // '';
    return;
}

# bars_of WORKLOAD: the contestants that have one in each group.
sub bars_of {
    my ($workload) = @_;
    my %shown = map { $_->{name} => 1 } grep { $_->{workload} eq $workload && !$_->{is_base} } @rows;
    return grep { $shown{$_} } map { $_->[0] } @contestants;
}

sub is_wide {
    my ($workload) = @_;
    return bars_of($workload) * keys( %{ $rounds{$workload} } ) > 16;
}

sub panel {
    my ( $workload, $x0, $y0, $panel_width ) = @_;
    my $plot_width = $panel_width - $left;
    my @mine   = grep { $_->{workload} eq $workload && !$_->{is_base} } @rows;
    my @counts = sort { $a <=> $b } keys %{ $rounds{$workload} };
    my @bars   = bars_of($workload);
    # One bad round shall not make all bars small.
    my $most   = 1.8 * ( sort { $b <=> $a } map { $_->{main}{median} } @mine )[0];
    my $max    = ( sort { $b <=> $a } 1.2, map { $_->{main}{max} } @mine )[0];
    $most = $max > $most && $most > 1.2 ? $most : $max;
    my $step   = ( grep { $most / $_ <= 6 } 0.25, 0.5, 1, 2, 4, 10, 20, 50, 100 )[0] // $most;
    my $scale  = $plot_height / ( $most * 1.1 );
    my ( $x_left, $y_zero ) = ( $x0 + $left, $y0 + $top + $plot_height );
    my $x_right = $x_left + $plot_width;

    my $lower = figure_of($workload) eq 'p99';
    text( $x0, $y0 + 14, $titles{$workload}, 'font-weight="bold" font-size="14"' );
    text( $x0, $y0 + 29,
        $lower ? 'p99 of the small gets: LOWER is better' : 'requests per second: higher is better',
        'fill="' . ( $lower ? $warning : $faint ) . '"' );
    for ( my $value = 0 ; $value * $scale <= $plot_height ; $value += $step ) {
        my $y = $y_zero - $value * $scale;
        line( $x_left, $y, $x_right, $y, '#e5e5e5' ) if $value != 1;
        text( $x_left - 6, $y + 4, $value, 'text-anchor="end"' ) if $value == 1 || abs( $value - 1 ) * $scale > 11;
    }
    my $group = $plot_width / @counts;
    my $bar   = $group * 0.88 / @bars;
    $bar = 40 if $bar > 40;
    my @values;
    for my $i ( 0 .. $#counts ) {
        my $middle = $x_left + ( $i + 0.5 ) * $group;
        text( $middle, $y_zero + 15, "c = $counts[$i]", 'text-anchor="middle"' );
        for my $j ( 0 .. $#bars ) {
            my ($row) = grep { $_->{c} == $counts[$i] && $_->{name} eq $bars[$j] } @mine or next;
            my ( $min, $median, $max ) = map { $_ * $scale } @{ $row->{main} }{qw(min median max)};
            my $x      = $middle + ( $j - @bars / 2 ) * $bar;
            my $centre = $x + $bar / 2;
            $svg .= sprintf qq{<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>\n},
                $x + 1, $y_zero - $median, $bar - 2, $median, $colour{ $bars[$j] };
            if ( $row->{main}{max} > $most ) {
                $max = $most * $scale;
                $svg .= sprintf qq{<path d="M%.1f %.1fl4 7h-8z" fill="#000000"/>\n}, $centre, $y_zero - $max;
            }
            line( $centre, $y_zero - $min, $centre, $y_zero - $max, '#000000', 'stroke-width="1.2"' );
            my $value = $row->{main}{median};
            push @values, [ $centre, $y_zero - $max - 4, sprintf $value < 10 ? '%.2f' : '%.1f', $value ];
        }
    }

    # Over the bars, because it is what they are compared with; numbers are over everything.
    my $y_one = $y_zero - $scale;
    line( $x_left, $y_one, $x_right, $y_one, '#000000', 'stroke-width="1.2" stroke-dasharray="5 3"' );
    line( $x_left, $y_zero, $x_right, $y_zero, $faint );
    for (@values) { $_->[1] = $y_one - 4 if $_->[1] > $y_one - 3 && $_->[1] < $y_one + 9 }
    text( @$_, 'text-anchor="middle" stroke="#ffffff" stroke-width="2.5" paint-order="stroke" font-size="' . ( $bar < 24 ? 8.5 : 9.5 ) . '"' )
        for @values;
    text( $x_right, $y0 + 29, "dashed: $label{ base_of($workload) } = 1", qq{text-anchor="end" fill="$faint"} );
    return;
}

# Where the panels are: [ WORKLOAD, X, Y, WIDTH ].
my ( @panels, $half );
my $y    = $header - $panel_height;
my $span = ( $width - 3 * $margin ) / 2;
for my $workload (@workloads) {
    if ( is_wide($workload) ) {
        push @panels, [ $workload, $margin, $y += $panel_height, $width - 2 * $margin ];
        $half = 0;
    }
    elsif ($half) {
        push @panels, [ $workload, 2 * $margin + $span, $y, $span ];
        $half = 0;
    }
    else {
        push @panels, [ $workload, $margin, $y += $panel_height, $span ];
        $half = 1;
    }
}
my $height = $y + $panel_height;

text( $margin, 28, 'Ways to ask memcached from nginx, as ratios to the pure-Lua library', 'font-weight="bold" font-size="17"' );
text( $margin, 48, "$option{title}, one nginx worker. c: concurrent requests." );
text( $margin, 64, "Private: a connection of the request's own. Shared: lua_memcached_multiplex $option{multiplex}." );
text( $margin, 80, 'A bar and the number over it: median of the rounds. Thin line: from the least to the largest round.'
    . ' Arrow: beyond the picture.' );
my %present = map { $_->{name} => 1 } grep { !$_->{is_base} } @rows;
my $x = $margin;
for my $name ( grep { $present{$_} } map { $_->[0] } @contestants ) {
    $svg .= qq{<rect x="$x" y="94" width="13" height="13" fill="$colour{$name}"/>\n};
    text( $x + 18, 105, $label{$name}, 'font-size="12"' );
    $x += 32 + 7.1 * length $label{$name};
}
panel(@$_) for @panels;

open my $file, '>', $option{svg} or die "cannot write $option{svg}: $!\n";
print {$file} <<"SVG";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" font-family="Helvetica, Arial, sans-serif" font-size="11" fill="$ink" role="img">
<title>Requests per second (and latency beside big values) of each contestant, as ratios to the pure-Lua library</title>
<rect width="$width" height="$height" rx="8" fill="#ffffff"/>
$svg</svg>
SVG
close $file or die "cannot write $option{svg}: $!\n";
