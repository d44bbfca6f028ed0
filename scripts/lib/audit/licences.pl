#!/usr/bin/env perl
# licences.pl deny.toml <metadata: what `cargo metadata` says of all dependencies, against
# [licenses] allow and [sources] allow-registry. For scripts/audit.

use strict;
use warnings;

use JSON::PP ();

my $deny = do { open my $in, '<', $ARGV[0] or die "$ARGV[0]: $!\n"; local $/; <$in> };
my %allowed  = map { $_ => 1 } list('allow');
my %registry = map { +"registry+$_" => 1 } list('allow-registry');
%allowed && %registry or die "$ARGV[0]: no allow, or no allow-registry\n";

my $metadata = do { local $/; JSON::PP::decode_json(<STDIN>) };
my ( $count, @wrong ) = (0);
for my $package ( @{ $metadata->{packages} } ) {
    my $name = "$package->{name} $package->{version}";
    my ( $source, $licence ) = @{$package}{qw( source license )};
    $count++;
    push @wrong, "$name: from $source" if defined $source && !$registry{$source};
    push @wrong, "$name: licence " . ( $licence // 'unknown' )
        if !defined $licence || !permitted($licence);
}
$count > 1 or die "no dependencies in what cargo says\n";
die map {"$_\n"} @wrong if @wrong;
print STDERR "    $count packages\n";

# The strings of an array in deny.toml.
sub list {
    my ($name) = @_;
    my ($text) = $deny =~ /^\Q$name\E\s*=\s*\[(.*?)\]/ms or return;
    return $text =~ /"([^"]+)"/g;
}

# Whether an SPDX expression can be satisfied by what is allowed.
sub permitted {
    my ($text) = @_;
    my @words = $text =~ m{[()]|/|[^\s()/]+}g;
    my $either;
    my $one = sub {
        my $word = shift @words // die "bad licence expression: $text\n";
        if ( $word eq '(' ) {
            my $value = $either->();
            ( shift @words // '' ) eq ')' or die "bad licence expression: $text\n";
            return $value;
        }
        if ( @words && $words[0] eq 'WITH' ) { $word .= ' ' . shift(@words) . ' ' . shift @words }
        return $allowed{$word} ? 1 : 0;
    };
    my $both = sub {
        my $value = $one->();
        while ( @words && $words[0] eq 'AND' ) {
            shift @words;
            my $more = $one->();
            $value &&= $more;
        }
        return $value;
    };
    $either = sub {
        my $value = $both->();
        while ( @words && $words[0] =~ m{\A(?:OR|/)\z} ) {
            shift @words;
            my $more = $both->();
            $value ||= $more;
        }
        return $value;
    };
    my $value = $either->();
    die "bad licence expression: $text\n" if @words;
    return $value;
}
