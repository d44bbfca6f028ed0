#!/usr/bin/env perl
# floors.pl ARCHITECTURE.md SRC: whether the code keeps to the floors that ARCHITECTURE.md
# writes down (its blocks that begin with ```floors). For scripts/audit.
#
# A block's first line names a directory of SRC; each further line is a floor, the highest first: the
# files and directories (with a slash) that are on it, and behind two spaces what it is for. What is
# in a directory that is named stands on one floor together.
#
# A file may use what is on its own floor or below: it may name no module above (`crate::…`,
# `super::…`), and call no method of the worker's state that is written above. Nor may files use each
# other in a circle, be longer than 500 lines, or have more than 15 of the methods of the worker's
# state. Suites of unit tests do not count.

use strict;
use warnings;

use File::Find ();

my ( $architecture, $src ) = @ARGV;
my ( $MAX_LINES, $MAX_METHODS ) = ( 500, 15 );
my @faults;

# The blocks: for each directory, file or directory => number of its floor, 0 is the lowest.
my %floor_of;
{
    open my $in, '<', $architecture or die "$architecture: $!\n";
    my ( $directory, @floors );
    while (<$in>) {
        if (/^```floors$/) { $directory = '' }
        elsif ( defined $directory && /^```$/ ) {
            for my $i ( 0 .. $#floors ) { $floor_of{$directory}{$_} = $#floors - $i for @{ $floors[$i] } }
            ( $directory, @floors ) = ();
        }
        elsif ( defined $directory && $directory eq '' ) { ($directory) = /^(\S+)/ }
        elsif ( defined $directory && /^\s*(\S+(?: \S+)*)/ ) { push @floors, [ split ' ', $1 ] }
    }
}
%floor_of or die "$architecture has no floors\n";

my %text;
File::Find::find(
    {   no_chdir => 1,
        wanted   => sub {
            return if !/\.rs\z/ || m{tests?(?:/|\.rs\z)} || /_absent\.rs\z/;
            open my $in, '<', $_ or die "$_: $!\n";
            my @lines = <$in>;
            push @faults, "$_ has " . @lines . " lines, more than $MAX_LINES" if @lines > $MAX_LINES;
            $text{$_} = join '', @lines;
            $text{$_} =~ s{//[^\n]*}{}g;
            # a file's own tests are in it
            $text{$_} =~ s/^#\[cfg\(test\)\]\nmod \w+ \{\n.*?^\}\n//gms;
        }
    },
    $src
);

# file_of PATH: the file of a module such as `transport::link::tls`, or of what is in it.
sub file_of {
    my @path = @_;
    while (@path) {
        my $path = join '/', $src, @path;
        for my $file ( "$path.rs", "$path/mod.rs" ) { return $file if exists $text{$file} }
        pop @path;
    }
    return;
}

# The names that a tree of `use` declares: paths as lists.
sub paths_of {
    my ( $tree, @prefix ) = @_;
    $tree =~ s/^\s+|\s+$//g;
    if ( $tree =~ /^((?:\w+::)*)\{(.*)\}$/s ) {
        my ( $path, $list ) = ( $1, $2 );
        my ( $depth, $part, @parts ) = ( 0, '' );
        for my $char ( split //, $list ) {
            $depth++ if $char eq '{';
            $depth-- if $char eq '}';
            if   ( $char eq ',' && !$depth ) { push @parts, $part; $part = '' }
            else                             { $part .= $char }
        }
        return map { paths_of( $_, @prefix, split /::/, $path ) } grep { /\S/ } @parts, $part;
    }
    $tree =~ s/\s+as\s+\w+$//;
    return [ @prefix, split /::/, $tree ];
}

# Who uses whom: file => file => how.
my ( %uses, %methods, %home );
for my $file ( keys %text ) {
    my @here = split m{/}, $file =~ s{^\Q$src\E/|(?:/mod)?\.rs\z}{}gr;
    @here = () if $here[0] eq 'lib';
    for my $tree ( $text{$file} =~ /\b(?:use\s+)((?:crate|super|self)::[^;]*);/g ) {
        for my $path ( paths_of($tree) ) {
            my @path = @{$path};
            my @from = @here;
            if    ( $path[0] eq 'crate' ) { @from = (); shift @path }
            elsif ( $path[0] eq 'self' )  { shift @path }
            while ( @path && $path[0] eq 'super' ) { pop @from; shift @path }
            my $used = file_of( @from, @path );
            $uses{$file}{$used} //= join '::', @{$path} if $used && $used ne $file;
        }
    }
    while ( $text{$file} =~ /\bcrate((?:::\w+)+)/g ) {
        my $used = file_of( grep { length } split /::/, $1 );
        $uses{$file}{$used} //= "crate$1" if $used && $used ne $file;
    }
    while ( $text{$file} =~ /^impl Worker \{\n(.*?)^\}/gms ) {
        for my $name ( $1 =~ /^    (?:pub(?:\([^)]*\))? )?(?:unsafe )?fn (\w+)/gm ) {
            push @{ $methods{$file} }, $name;
            $home{$name} = $file;
        }
    }
    my $count = @{ $methods{$file} // [] };
    push @faults, "$file has $count methods of the worker's state, more than $MAX_METHODS" if $count > $MAX_METHODS;
}
for my $file ( keys %text ) {
    while ( $text{$file} =~ /\b(?:(?:self|worker)\s*\.\s*(\w+)\s*\(|(?:Worker|Self)::(\w+))/g ) {
        my $name = $1 // $2;
        my $used = $home{$name} // next;
        # a method of that name of another type is none of them
        next if !defined $2 && !$methods{$file} && $text{$file} !~ /\bworker\s*\.\s*$name/;
        $uses{$file}{$used} //= "the method $name" if $used ne $file;
    }
}

# floor FILE, DIRECTORY: on which floor of the directory a file is.
sub floor {
    my ( $file, $directory ) = @_;
    my ($inside) = $file =~ m{^\Q$directory\E/(.*)} or return;
    my $floors = $floor_of{$directory};
    my ($first) = $inside =~ m{^([^/]+/)};
    return $floors->{ $first // $inside } // do {
        push @faults, "$file is on no floor of $directory";
        undef;
    };
}

for my $directory ( sort keys %floor_of ) {
    for my $file ( sort keys %uses ) {
        my $from = floor( $file, $directory ) // next;
        for my $used ( sort keys %{ $uses{$file} } ) {
            # a directory's own file tells who is in it
            next if $used eq "$directory/mod.rs" && $file ne $used;
            my $to = floor( $used, $directory ) // next;
            push @faults, "$file uses $used above it ($uses{$file}{$used})" if $to > $from;
        }
    }
}

# Circles, by depth-first search; the state of a file: on the path, or done.
my ( %state, @path );

sub visit {
    my ($file) = @_;
    $state{$file} = 'on the path';
    push @path, $file;
    for my $used ( sort keys %{ $uses{$file} // {} } ) {
        # what only declares and names what is in its directory is no part of it
        next if $used =~ m{(?:/mod|lib)\.rs\z} && $uses{$file}{$used} !~ /the method/ && is_face($used);
        if ( !$state{$used} ) { visit($used) }
        elsif ( $state{$used} eq 'on the path' ) {
            my ($at) = grep { $path[$_] eq $used } 0 .. $#path;
            push @faults, 'a circle: ' . join ' -> ', @path[ $at .. $#path ], $used;
        }
    }
    pop @path;
    $state{$file} = 'done';
    return;
}

# is_face FILE: it has nothing of its own but declarations of modules and names that they have.
sub is_face {
    my $rest = $text{ $_[0] };
    $rest =~ s/^\s*(?:pub(?:\([^)]*\))?\s+)?(?:use\s[^;]*|mod\s+\w+);//gms;
    $rest =~ s/^#!?\[[^\n]*\]//gm;
    return $rest !~ /\S/;
}
for my $file ( sort keys %text ) { visit($file) if !$state{$file} }

if (@faults) {
    print STDERR "$_\n" for @faults;
    exit 1;
}
printf "%d files keep to their floors\n", scalar keys %text;
