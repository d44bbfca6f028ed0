package TestEnv::Reference;

use strict;
use warnings;

use TestEnv::Table ();

my %without;    # of this suite: number of a block => why it is not run

# Reads what the list says of a suite. Returns why none of it is run.
sub read_list {
    my ( $root, $suite ) = @_;
    my $whole;
    for my $row ( TestEnv::Table::rows( $root, 'reference.tsv', 3, $suite ) ) {
        my ( undef, $blocks, $reason ) = @$row;
        if ( $blocks eq 'all' ) { $whole = $reason; next }
        $without{$_} = $reason for split /,/, $blocks;
    }
    return $whole;
}

# Has a block skipped that is not run.
sub prepare {
    my ($block) = @_;
    my ($number) = ( $block->name // '' ) =~ /^TEST (\d+)\b/;
    return if !defined $number || !defined $without{$number};
    my @patterns = map { ref ? @$_ : split /\n/ } map { $block->$_ // () } qw( error_log no_error_log );
    # a status, a body, and a test for each pattern
    my $tests = 2 + grep {/\S/} @patterns;
    $block->set_value( skip_eval => "$tests: 1" );
    $block->set_value( name      => $block->name . " ($without{$number})" );
    return;
}

1;
__END__

=head1 NAME

TestEnv::Reference - what is not run against the pure-Lua library

=head1 DESCRIPTION

F<t/lib/reference.tsv> has suites, and blocks of suites, that state what this module does and the
pure-Lua library does not, each with the reason. Suites without a block of the library's behaviour may
say so themselves, by the option C<skip> of C<TestEnv::head>.

=cut
