#!/usr/bin/env perl
# unsafe.pl DIR: for each Rust file below DIR with unsafe code, a line with its number of
# unsafe blocks, and of unsafe functions, impls and extern blocks. For scripts/audit.

use strict;
use warnings;

use File::Find ();

my ( $dir, @files ) = @ARGV;
File::Find::find( { no_chdir => 1, wanted => sub { push @files, $_ if /\.rs\z/ } }, $dir );
my ( $all_blocks, $all_others ) = ( 0, 0 );
for my $file ( sort @files ) {
    open my $in, '<', $file or die "$file: $!\n";
    my ( $blocks, $others ) = ( 0, 0 );
    while (<$in>) {
        s{//.*}{};
        s{"(?:[^"\\]|\\.)*"}{""}g;
        $blocks++ while /\bunsafe\s*\{/g;
        $others++ while /\bunsafe\s+(?:extern|fn|impl|trait)\b/g;
    }
    print "$file\t$blocks\t$others\n" if $blocks || $others;
    $all_blocks += $blocks;
    $all_others += $others;
}
print "all\t$all_blocks\t$all_others\n";
