# What prove runs the suites with (--harness).
#
# A skipped test is a failure, because what is not run proves nothing. ALLOW_SKIPS=1 in the
# environment only names them.
#
# Many suites are about time, and machines may be busy: a suite that failed runs once more, alone,
# and that counts. It is named. ONCE=1 in the environment has none run again.
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
    if ( $aggregate->has_errors && !$ENV{ONCE} ) {
        my %failed = map { $_ => 1 } map { $aggregate->$_ } qw( failed exit wait parse_errors );
        my @again = grep { $failed{ ref $_ ? $_->[0] : $_ } } @tests;
        print STDERR "Once more, alone: @again\n";
        $self->jobs(1);
        $aggregate = $self->SUPER::runtests(@again) if @again;
        print STDERR 'At the second attempt ', ( $aggregate->has_errors ? 'not all' : 'all' ), " passed: @again\n";
    }
    if (@skipped) {
        print STDERR "Skipped:\n", map { "    $_\n" } @skipped;
        exit 1 if !$ENV{ALLOW_SKIPS} && !$aggregate->has_errors;
    }
    return $aggregate;
}

1;
