#!/usr/bin/perl
# The result of scripts/bench: Markdown tables on stdout and, with --svg FILE, a picture.
#
#   bench-report.pl [--svg FILE] [--title TEXT] --ticks N RESULTS
#
# RESULTS has a line for each contestant in each round, fields separated by tabs:
# workload, concurrent requests, contestant, round, requests, duration, latency p50 and
# p99 (microseconds), CPU of nginx's worker and of memcached (clock ticks, N a second).

use strict;
use warnings;

my %option = ( ticks => 100, title => '' );
while ( @ARGV && $ARGV[0] =~ /^--(svg|title|ticks)$/ ) {
    $option{$1} = $ARGV[1];
    splice @ARGV, 0, 2;
}

# How workloads and contestants are called, and the colours of the latter.
my %titles = (
    'get'       => 'get 32 B',
    'get-10'    => '10 sequential gets',
    'multi-get' => 'multi-get 100 × 100 B',
    'set'       => 'set 32 B',
    'set-100k'  => 'set 100 KB',
    'get-1m'    => 'get 1 MB',
    'pass-1m'   => 'get 1 MB, sent to the client',
);
my @contestants = (
    [ module         => 'this module',       '#c2410c' ],
    [ lua            => 'pure-Lua library',  '#9ca3af' ],
    [ memcached_pass => 'memcached_pass',    '#15803d' ],
    [ memc           => 'memc module',       '#0369a1' ],
    [ empty          => 'empty handler',     '#d4d4d8' ],
);

# $rounds{workload}{c}{contestant}[round - 1]
my ( %rounds, @workloads );
while (<>) {
    chomp;
    my ( $workload, $c, $contestant, $round, $requests, $duration, $p50, $p99, $worker, $memcached ) = split /\t/;
    push @workloads, $workload if !$rounds{$workload};
    $rounds{$workload}{$c}{$contestant}[ $round - 1 ] = {
        requests  => $requests,
        rate      => $requests * 1e6 / $duration,
        p50       => $p50,
        p99       => $p99,
        worker    => $worker / $option{ticks},
        memcached => $memcached / $option{ticks},
    };
}

sub median {
    my @sorted = sort { $a <=> $b } @_;
    my $middle = int @sorted / 2;
    return @sorted % 2 ? $sorted[$middle] : ( $sorted[ $middle - 1 ] + $sorted[$middle] ) / 2;
}

sub ratio { my ( $x, $y ) = @_; return $y ? $x / $y : 0 }

# per_1000 ROUNDS, NAME: CPU seconds per 1000 requests over all rounds.
sub per_1000 {
    my ( $rounds, $name ) = @_;
    my ( $cpu, $requests ) = ( 0, 0 );
    for (@$rounds) { $cpu += $_->{$name}; $requests += $_->{requests} }
    return 1000 * ratio( $cpu, $requests );
}

# In the order they are shown: one entry for each contestant at each point.
my @rows;
for my $workload (@workloads) {
    for my $c ( sort { $a <=> $b } keys %{ $rounds{$workload} } ) {
        my $point = $rounds{$workload}{$c};
        my $lua   = $point->{lua};
        for (@contestants) {
            my ( $name, $label ) = @$_;
            my $mine = $point->{$name} or next;
            my %of   = map {
                my $what = $_;
                ( $what => [ map { ratio( $mine->[$_]{$what}, $lua->[$_]{$what} ) } 0 .. $#$lua ] )
            } qw(rate p50 p99);
            my @rates = sort { $a <=> $b } @{ $of{rate} };
            push @rows, {
                workload => $workload, c => $c, name => $name, label => $label,
                min => $rates[0], median => median(@rates), max => $rates[-1],
                p50 => median( @{ $of{p50} } ), p99 => median( @{ $of{p99} } ),
                ( map { $_ => ratio( per_1000( $mine, $_ ), per_1000( $lua, $_ ) ) } qw(worker memcached) ),
                note => [
                    median( map { $_->{rate} } @$mine ),
                    median( map { $_->{p50} / 1000 } @$mine ), median( map { $_->{p99} / 1000 } @$mine ),
                    per_1000( $mine, 'worker' ), per_1000( $mine, 'memcached' ),
                ],
            };
        }
    }
}

# ---- tables ----------------------------------------------------------------

print <<"TEXT";
Ratios to the pure-Lua library at the same time on the same machine ($option{title}). Requests/s: more is better,
latency and CPU per request: less is better. Latency: medians of the rounds; CPU: all rounds together.

| workload | c | | requests/s, min | median | max | p50 | p99 | CPU, worker | CPU, memcached |
|---|--:|---|--:|--:|--:|--:|--:|--:|--:|
TEXT
for (@rows) {
    next if $_->{name} eq 'lua';
    my $median = $_->{name} eq 'module' ? '**%.2f**' : '%.2f';
    printf "| %s | %d | %s | %.2f | $median | %.2f | %.2f | %.2f | %.2f | %s |\n", $titles{ $_->{workload} },
        @$_{qw(c label min median max p50 p99 worker)},
        $_->{name} eq 'empty' ? '–' : sprintf '%.2f', $_->{memcached};
}
print <<'TEXT';

Side note: what these ratios were made of. It says more about the machine than about the contestants.

| workload | c | | requests/s | p50, ms | p99, ms | worker CPU, s per 1000 requests | memcached CPU, s per 1000 requests |
|---|--:|---|--:|--:|--:|--:|--:|
TEXT
printf "| %s | %d | %s | %.0f | %.2f | %.2f | %.4f | %.4f |\n", $titles{ $_->{workload} }, @$_{qw(c label)},
    @{ $_->{note} }
    for @rows;

# ---- picture ---------------------------------------------------------------

exit 0 if !defined $option{svg};

# One panel for each workload, in two columns; in it a group of bars for each number of
# concurrent requests. A bar is the median, the line on it reaches from min to max.
my ( $panel_width, $panel_height, $columns ) = ( 430, 230, 2 );
my ( $left, $top, $plot_width, $plot_height ) = ( 40, 34, 370, 150 );
my $panel_rows = int( ( @workloads + $columns - 1 ) / $columns );
my ( $width, $height ) = ( $panel_width * $columns, 62 + $panel_rows * $panel_height );
my $svg = '';

sub text {
    my ( $x, $y, $text, $more ) = @_;
    $text =~ s/&/&amp;/g;
    $text =~ s/</&lt;/g;
    $svg .= sprintf qq{<text x="%.1f" y="%.1f" %s>%s</text>\n}, $x, $y, $more // '', $text;
    return;
}

sub line {
    my ( $x1, $y1, $x2, $y2, $stroke ) = @_;
    $svg .= sprintf qq{<path d="M%.1f %.1fL%.1f %.1f" stroke="%s"/>\n}, $x1, $y1, $x2, $y2, $stroke;
    return;
}

sub panel {
    my ( $workload, $x0, $y0 ) = @_;
    my @mine = grep { $_->{workload} eq $workload && $_->{name} ne 'lua' } @rows;
    my @counts = sort { $a <=> $b } keys %{ $rounds{$workload} };
    my %shown = map { $_->{name} => 1 } @mine;
    my @bars  = grep { $shown{ $_->[0] } } @contestants;
    my $most  = ( sort { $b <=> $a } 1.2, map { $_->{max} } @mine )[0];
    my $step  = $most > 12 ? 4 : $most > 6 ? 2 : $most > 2.5 ? 1 : 0.5;
    my $scale = $plot_height / ( $most * 1.08 );
    my ( $x_left, $y_zero ) = ( $x0 + $left, $y0 + $top + $plot_height );

    text( $x_left, $y0 + 18, $titles{$workload}, 'font-weight="bold" font-size="13"' );
    for ( my $value = 0 ; $value * $scale <= $plot_height ; $value += $step ) {
        my $y = $y_zero - $value * $scale;
        line( $x_left, $y, $x_left + $plot_width, $y, $value == 1 ? '#404040' : '#e5e5e5' );
        text( $x_left - 6, $y + 4, $value, 'text-anchor="end"' );
    }
    my $group = $plot_width / @counts;
    my $bar   = $group * 0.8 / @bars;
    $bar = 44 if $bar > 44;
    for my $i ( 0 .. $#counts ) {
        my $middle = $x_left + ( $i + 0.5 ) * $group;
        text( $middle, $y_zero + 15, "c = $counts[$i]", 'text-anchor="middle"' );
        for my $j ( 0 .. $#bars ) {
            my ($row) = grep { $_->{c} == $counts[$i] && $_->{name} eq $bars[$j][0] } @mine or next;
            my $x = $middle + ( $j - @bars / 2 ) * $bar;
            my $tall = $row->{median} * $scale;
            $svg .= sprintf qq{<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>\n},
                $x + 1, $y_zero - $tall, $bar - 2, $tall, $bars[$j][2];
            my $centre = $x + $bar / 2;
            line( $centre, $y_zero - $row->{min} * $scale, $centre, $y_zero - $row->{max} * $scale, '#171717' );
            text( $centre, $y_zero - $row->{max} * $scale - 3, sprintf( '%.1f', $row->{median} ),
                'text-anchor="middle" font-size="9"' );
        }
    }
    return;
}

text( $left, 22, 'Requests per second, pure-Lua library = 1', 'font-weight="bold" font-size="15"' );
text( $left, 38, "$option{title}; bars are medians, lines reach from the least to the largest" );
my $x = $left;
my %present = map { $_->{name} => 1 } @rows;
for ( grep { $_->[0] ne 'lua' && $present{ $_->[0] } } @contestants ) {
    $svg .= qq{<rect x="$x" y="47" width="11" height="11" fill="$_->[2]"/>\n};
    text( $x + 16, 57, $_->[1] );
    $x += 40 + 6.5 * length $_->[1];
}
for my $i ( 0 .. $#workloads ) {
    panel( $workloads[$i], ( $i % $columns ) * $panel_width, 62 + int( $i / $columns ) * $panel_height );
}
open my $file, '>', $option{svg} or die "cannot write $option{svg}: $!\n";
print {$file} <<"SVG";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" font-family="sans-serif" font-size="11" fill="#262626" role="img">
<title>Requests per second of each contestant, as ratios to the pure-Lua library</title>
<rect width="$width" height="$height" fill="#ffffff"/>
$svg</svg>
SVG
close $file or die "cannot write $option{svg}: $!\n";
