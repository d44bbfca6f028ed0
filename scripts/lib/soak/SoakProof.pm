package SoakProof;

use strict;
use warnings;

# Faults that plant.lua plants, and what scripts/soak must say about each.

my %PLANTS = (
    wrong      => qr/got another value/,
    unwritten  => qr/is lost|is stale|not found|unexpected error|gave/,
    twice      => qr/ledger\d of \w+ is/,
    lost       => qr/requests do not end|without an end|has no result/,
    error      => qr/without a cause: closed/,
    refused    => qr/without a cause: connection refused/,
    early      => qr/timed out/,
    fd         => qr/file descriptors/,
    connection => qr/file descriptors|open in/,
    memory     => qr/memory grows/,
    lua_memory => qr/memory of Lua grows/,
    log        => qr/\[crit\].*planted/,
    stays      => qr/old workers stay|timers/,
    busy       => qr/is busy|timers/,    # on a loaded machine it gets no time to be busy
    crash      => qr/exited on signal/,
);

# Runs @$command with each of these plants (default: all); how many were not noticed.
sub run {
    my ( $command, @names ) = @_;
    my $unnoticed = 0;
    for my $name ( @names ? @names : sort keys %PLANTS ) {
        my $wanted = $PLANTS{$name} or die "no such plant: $name\n";
        open my $out, '-|', @$command, '--plant', $name or die "$command->[0]: $!\n";
        my $text = do { local $/; readline $out };
        my $failed = !close $out;
        my ($line) = grep {/^WRONG.*$wanted/} split /\n/, $text;
        my $noticed = $failed && defined $line;
        $unnoticed++ if !$noticed;
        printf "%-11s %s\n", $name, $noticed ? "noticed: $line" : "NOT NOTICED\n$text";
    }
    return $unnoticed;
}

1;
