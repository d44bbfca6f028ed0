package TestEnv::Table;

use strict;
use warnings;

use File::Spec ();

# The rows of t/lib/$name that are about a suite, each as a list of its columns. The last one is a
# reason, which each must have. The first one is the suite, or a folder of suites with a slash behind it.
sub rows {
    my ( $root, $name, $columns, $suite ) = @_;
    my $path = File::Spec->catfile( $root, 't', 'lib', $name );
    my @rows;
    open my $table, '<', $path or die "TestEnv: $path: $!\n";
    while ( my $line = <$table> ) {
        next if $line =~ /^\s*(?:#|$)/;
        chomp $line;
        my @row = split /\t+/, $line;
        @row == $columns && $row[-1] ne '' or die "TestEnv: $path: line $. is wrong\n";
        push @rows, \@row if $row[0] eq $suite || $row[0] =~ m{/\z} && index( $suite, $row[0] ) == 0;
    }
    close $table or die "TestEnv: $path: $!\n";
    return @rows;
}

1;
__END__

=head1 NAME

TestEnv::Table - what is different in other modes, by suite

=head1 DESCRIPTION

Reads F<t/lib/upstream.tsv> and F<t/lib/reference.tsv>. Lines that begin with C<#> are comments.

=cut
