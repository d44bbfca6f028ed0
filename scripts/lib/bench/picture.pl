#!/usr/bin/perl
# The result of scripts/bench as a picture, SVG on stdout.
#
#   picture.pl [--title TEXT] [--multiplex N] RESULTS

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use BenchResults;

my %option = options();
my ( $rounds, @workloads ) = read_results();
my @rows = rows_of( $rounds, @workloads );

# One panel for each workload; in it a group of bars for each number of concurrent requests.
# A bar is the median, the line on it reaches from the least to the largest. Two panels are
# side by side, unless one has so many bars that it needs the whole width. The background is
# opaque, so that the page behind it may be dark.
my ( $width,  $margin )                     = ( 900, 16 );
my ( $header, $panel_height, $plot_height ) = ( 148, 212, 132 );
my ( $left,   $top )                        = ( 34, 42 );
my ( $ink,    $faint )                      = ( '#262626', '#57534e' );
my %colour_of = map { $_->[0] => $_->[2] } @CONTESTANTS;
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
    return grep { $shown{$_} } map { $_->[0] } @CONTESTANTS;
}

sub is_wide {
    my ($workload) = @_;
    return bars_of($workload) * keys( %{ $rounds->{$workload} } ) > 16;
}

sub panel {
    my ( $workload, $x0, $y0, $panel_width ) = @_;
    my $plot_width = $panel_width - $left;
    my @mine   = grep { $_->{workload} eq $workload && !$_->{is_base} } @rows;
    my @counts = sort { $a <=> $b } keys %{ $rounds->{$workload} };
    my @bars   = bars_of($workload);
    # One bad round shall not make all bars small.
    my $most   = 1.8 * ( sort { $b <=> $a } map { $_->{main}{median} } @mine )[0];
    my $max    = ( sort { $b <=> $a } 1.2, map { $_->{main}{max} } @mine )[0];
    $most = $max > $most && $most > 1.2 ? $most : $max;
    my $step   = ( grep { $most / $_ <= 6 } 0.25, 0.5, 1, 2, 4, 10, 20, 50, 100 )[0] // $most;
    my $scale  = $plot_height / ( $most * 1.1 );
    my ( $x_left, $y_zero ) = ( $x0 + $left, $y0 + $top + $plot_height );
    my $x_right = $x_left + $plot_width;

    text( $x0, $y0 + 14, $TITLES{$workload}, 'font-weight="bold" font-size="14"' );
    text( $x0, $y0 + 29,
        figure_of($workload) eq 'p99' ? 'p99 of the small gets: lower is better' : 'CPU of the worker per request: lower is better',
        qq{fill="$faint"} );
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
                $x + 1, $y_zero - $median, $bar - 2, $median, $colour_of{ $bars[$j] };
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
    text( $x_right, $y0 + 29, "dashed: $LABEL{ base_of($workload) } = 1", qq{text-anchor="end" fill="$faint"} );
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

text( $margin, 28, 'Ways to ask memcached from nginx: CPU of the worker per request',
    'font-weight="bold" font-size="17"' );
text( $margin, 48, "$option{title}." );
text( $margin, 64, "c: concurrent requests. Private: a connection of the request's own. Shared: lua_memcached_multiplex $option{multiplex}." );
text( $margin, 80, 'A bar and the number over it: median of the rounds. Thin line: from the least to the largest round.'
    . ' Arrow: beyond the picture.' );

# The legend, in as many lines as it takes.
my %present = map { $_->{name} => 1 } grep { !$_->{is_base} } @rows;
my ( $legend_x, $legend_y ) = ( $margin, 94 );
for my $name ( grep { $present{$_} } map { $_->[0] } @CONTESTANTS ) {
    my $legend_width = 38 + 7.1 * length $LABEL{$name};
    ( $legend_x, $legend_y ) = ( $margin, $legend_y + 20 ) if $legend_x + $legend_width > $width;
    $svg .= qq{<rect x="$legend_x" y="$legend_y" width="13" height="13" fill="$colour_of{$name}"/>\n};
    text( $legend_x + 18, $legend_y + 11, $LABEL{$name}, 'font-size="12"' );
    $legend_x += $legend_width;
}
panel(@$_) for @panels;

print <<"SVG";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" font-family="Helvetica, Arial, sans-serif" font-size="11" fill="$ink" role="img">
<title>CPU time of the worker per request of each contestant, as ratios to the pure-Lua library</title>
<rect width="$width" height="$height" rx="8" fill="#ffffff"/>
$svg</svg>
SVG
