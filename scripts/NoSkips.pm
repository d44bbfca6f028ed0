# What prove runs the suites with (--harness): a skipped test is a failure, because
# what is not run proves nothing. ALLOW_SKIPS=1 in the environment only names them.
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
    if (@skipped) {
        print STDERR "Skipped:\n", map { "    $_\n" } @skipped;
        exit 1 if !$ENV{ALLOW_SKIPS} && !$aggregate->has_errors;
    }
    return $aggregate;
}

1;
