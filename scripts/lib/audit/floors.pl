#!/usr/bin/env perl
# floors.pl ARCHITECTURE.md SRC: whether the code keeps to the floors that ARCHITECTURE.md
# writes down (its blocks that begin with ```floors). For scripts/audit.
#
# A block's first line names a directory of SRC; each further line is a floor, the highest first: the
# files and directories (with a slash) that are on it, and behind two spaces what it is for. What is
# in a directory that is named stands on one floor together.
#
# A file may use what is on its own floor or below: it may name nothing of a file above, and call no
# method of the worker's state that is written above. Nor may files use each other in a circle, be
# longer than 500 lines, or have more than 15 of the methods of the worker's state. A name that a
# module only passes on (`pub use`) counts as one of the file that it comes from. A parent module is
# a file like others. Suites of unit tests do not count.

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

my ( %text, %passes_on );
File::Find::find(
    {   no_chdir => 1,
        wanted   => sub {
            return if !/\.rs\z/ || m{tests?(?:/|\.rs\z)} || /_absent\.rs\z/;
            open my $in, '<', $_ or die "$_: $!\n";
            my @lines = <$in>;
            push @faults, "$_ has " . @lines . " lines, more than $MAX_LINES" if @lines > $MAX_LINES;
            $text{$_} = join '', @lines;
            $text{$_} =~ s{//[^\n]*}{}g;
            # that names who may see it
            $text{$_} =~ s/\bpub\(in [\w:]+\)/pub/g;
            # a file's own tests are in it
            $text{$_} =~ s/^#\[cfg\(test\)\]\nmod \w+ \{\n.*?^\}\n//gms;
        }
    },
    $src
);

# file_of PATH: the file of a module such as `transport::link::tls`, or of what is in it; a name that
# a module only passes on (`pub use`) is in the file that it comes from.
sub file_of {
    my @path = @_;
    my @rest;
    while (1) {
        my $path = join '/', $src, @path;
        for my $file ( @path ? ( "$path.rs", "$path/mod.rs" ) : ("$path/lib.rs") ) {
            next if !exists $text{$file};
            my $origin = @rest && ( $passes_on{$file}{ $rest[0] } || $passes_on{$file}{'*'} );
            return $origin ? file_of( @{$origin}, @rest[ 1 .. $#rest ] ) // $file : $file;
        }
        return if !@path;
        unshift @rest, pop @path;
    }
}

# module_of FILE: its path, as a list.
sub module_of {
    my ($file) = @_;
    my @here = split m{/}, $file =~ s{^\Q$src\E/|(?:/mod)?\.rs\z}{}gr;
    return $here[0] eq 'lib' ? () : @here;
}

# from_root FILE, PATH: a path that is written in the file, from the root of the crate. Empty: it
# leads out of the crate.
sub from_root {
    my ( $file, @path ) = @_;
    my @from = module_of($file);
    if    ( $path[0] eq 'crate' ) { @from = (); shift @path }
    elsif ( $path[0] eq 'self' )  { shift @path }
    elsif ( $path[0] ne 'super' && $text{$file} !~ /\bmod \Q$path[0]\E;/ ) { return }
    while ( @path && $path[0] eq 'super' ) { pop @from; shift @path }
    return @from, @path;
}

# What a tree of `use` declares: for each the path, as a list, and the name that it has here.
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
    my $as = $tree =~ s/\s+as\s+(\w+)$// ? $1 : undef;
    my @path = ( @prefix, split /::/, $tree );
    return { path => \@path, name => $as // $path[-1] };
}

for my $file ( keys %text ) {
    while ( $text{$file} =~ /^\s*pub(?:\([^)]*\))?\s+use\s+([^;]*);/gm ) {
        for my $declared ( paths_of($1) ) {
            my @path = from_root( $file, @{ $declared->{path} } ) or next;
            pop @path if $declared->{name} eq '*';
            $passes_on{$file}{ $declared->{name} } = \@path;
        }
    }
}

# Who uses whom: file => file => how.
my ( %uses, %methods, %home );
for my $file ( keys %text ) {
    my $text = $text{$file} =~ s/\buse\s+[^;]*;//gr;
    my ( @paths, @passed_on );
    while ( $text{$file} =~ /^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]*);/gm ) {
        push @{ $1 ? \@passed_on : \@paths }, paths_of($2);
    }
    # what is only passed on is not used
    push @paths, grep { $text =~ /\b\Q$_->{name}\E\b/ } @passed_on;
    my %imported = map { $_->{name} => $_->{path} } @paths;
    @paths = map { $_->{path} } @paths;
    for my $path ( map { [ split /::/ ] } $text =~ /(?<![\w:])([a-z]\w*(?:::\w+)+)/g ) {
        my ( $first, @rest ) = @{$path};
        push @paths, [ @{ $imported{$first} // [$first] }, @rest ];
    }
    for my $path (@paths) {
        my @path = from_root( $file, @{$path} ) or next;
        my $used = file_of(@path);
        $uses{$file}{$used} //= join '::', @{$path} if $used && $used ne $file;
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

for my $file ( sort keys %text ) { visit($file) if !$state{$file} }

if (@faults) {
    print STDERR "$_\n" for @faults;
    exit 1;
}
printf "%d files keep to their floors\n", scalar keys %text;
