#!/usr/bin/env perl
# Changes to the module for scripts/mutants --nginx.
#
#   sample.pl [--seed N] COUNT SUITES DIR <LIST
#
# takes COUNT of the changes in LIST (cargo mutants --list --json), by chance, and writes of each
# into DIR: N.diff, and a line in DIR/list with N, file, text and the suites for it, by the table
# SUITES, with tabs between.

use strict;
use warnings;

use Getopt::Long ();
use JSON::PP     ();
use List::Util qw( shuffle uniq );

Getopt::Long::GetOptions( 'seed=i' => \( my $seed = time ) ) && @ARGV == 3 or die "usage: see the head of $0\n";
my ( $count, $table, $dir ) = @ARGV;

# Beginnings of paths => suites.
my %suites;
open my $in, '<', $table or die "$table: $!\n";
while (<$in>) {
    next if /^#/;
    chomp;
    my ( $path, $names ) = split /\t/ or next;
    $path eq '*' || ( () = glob "$path*" ) or die "$table: no such path: $path\n";
    my @found;
    for my $name ( split ' ', $names ) {
        my @files = -d "t/$name" ? glob "t/$name/*.t" : grep {-f} "t/$name.t";
        @files or die "$table: no such suite: $name\n";
        push @found, @files;
    }
    $suites{$path} = join ' ', uniq @found;
}
$suites{'*'} or die "$table: no row for *\n";

sub suites_for {
    my ($file) = @_;
    my ($best) = sort { length $b <=> length $a } grep { index( $file, $_ ) == 0 } keys %suites;
    return $suites{ $best // '*' };
}

my $changes = do { local $/; JSON::PP::decode_json(<STDIN>) };
@$changes or die "cargo mutants finds nothing to change\n";
# In an order of their own, whatever that of the list is.
my @sorted = sort { $a->{name} cmp $b->{name} } @$changes;
srand $seed;
my @sample = shuffle(@sorted);
$#sample = $count - 1 if @sample > $count;
printf STDERR "==> %d of %d changes, seed %d\n", scalar @sample, scalar @sorted, $seed;

open my $list, '>', "$dir/list" or die "$dir/list: $!\n";
my $n = 0;
for my $change (@sample) {
    $n++;
    open my $diff, '>:encoding(UTF-8)', "$dir/$n.diff" or die "$dir/$n.diff: $!\n";
    print {$diff} $change->{diff};
    close $diff or die "$dir/$n.diff: $!\n";
    ( my $text = $change->{name} ) =~ s/\s+/ /g;
    print {$list} join( "\t", $n, $change->{file}, $text, suites_for( $change->{file} ) ), "\n";
}
close $list or die "$dir/list: $!\n";
