# What prove runs the suites with (--harness).
#
# A skipped test is a failure, because what is not run proves nothing. ALLOW_SKIPS=1 in the
# environment only names them.
#
# Many suites are about time, and machines may be busy: a suite that failed runs once more, alone,
# and that counts. It is named. ONCE=1 in the environment has none run again.
#
# FAILED_SUITES in the environment names a file to which a line is appended for each suite that
# failed, and each that passed at its second attempt only.
package NoSkips;

use strict;
use warnings;

use parent 'TAP::Harness';

sub runtests {
    my ( $self, @tests ) = @_;
    my @skipped;
    $self->callback(
        after_test => sub {
            my ( $test, $parser ) = @_;
            my $name = ref $test ? $test->[0] : $test;
            if ( my $why = $parser->skip_all ) {
                push @skipped, "$name: all of it: $why";
            }
            elsif ( my @numbers = $parser->skipped ) {
                push @skipped, "$name: tests @numbers";
            }
        }
    );
    my $aggregate = $self->SUPER::runtests(@tests);
    my @again;
    if ( $aggregate->has_errors && !$ENV{ONCE} ) {
        my %failed = map { $_ => 1 } failing($aggregate);
        @again = grep { $failed{ ref $_ ? $_->[0] : $_ } } @tests;
        print STDERR "Once more, alone: @again\n";
        $self->jobs(1);
        $aggregate = $self->SUPER::runtests(@again) if @again;
        print STDERR 'At the second attempt ', ( $aggregate->has_errors ? 'not all' : 'all' ), " passed: @again\n";
    }
    record( $aggregate, map { ref $_ ? $_->[0] : $_ } @again );
    if (@skipped) {
        print STDERR "Skipped:\n", map { "    $_\n" } @skipped;
        exit 1 if !$ENV{ALLOW_SKIPS} && !$aggregate->has_errors;
    }
    return $aggregate;
}

# The names of suites that failed in one way or another.
sub failing {
    my ($aggregate) = @_;
    my %failed = map { $_ => 1 } map { $aggregate->$_ } qw( failed exit wait parse_errors );
    return sort keys %failed;
}

# record AGGREGATE AGAIN...: the last attempt, and the suites that ran twice.
sub record {
    my ( $aggregate, @again ) = @_;
    my $file = $ENV{FAILED_SUITES} or return;
    open my $out, '>>', $file or die "$file: $!\n";
    my @failing = failing($aggregate);
    for my $name (@failing) {
        my ($parser) = $aggregate->parsers($name);
        my @numbers = $parser->failed;
        print $out "$name failed", ( @numbers ? ": tests @numbers" : '' ), "\n";
    }
    my %failing = map { $_ => 1 } @failing;
    print $out "$_ passed at the second attempt\n" for grep { !$failing{$_} } @again;
    close $out or die "$file: $!\n";
    return;
}

1;
