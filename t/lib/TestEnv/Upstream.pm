package TestEnv::Upstream;

use strict;
use warnings;

use TestEnv::Ports ();
use TestEnv::Table ();

my $LIST = 'upstream.tsv';    # beside TestEnv.pm

my %plain;      # of this suite: number of a block => why it stays with plain objects
my %differs;    # number of a block => [ [ text of a plain object, text of a group ], ... ]
my $fakes;      # ports for servers that Lua makes

# Reads what the list says of a suite. Returns why the whole of it is left out.
sub read_list {
    my ( $root, $suite ) = @_;
    my $whole;
    for my $row ( TestEnv::Table::rows( $root, $LIST, 4, $suite ) ) {
        my ( undef, $blocks, $what, $reason ) = @$row;
        if ( $blocks eq 'all' ) { $whole = $reason; next }
        for my $block ( split /,/, $blocks ) {
            if ( $what eq 'plain' ) { $plain{$block} = $reason; next }
            my @texts = map {s/\\n/\n/gr} $what =~ /\A(.+) => (.*)\z/
                or die "TestEnv: $LIST: $suite TEST $block: \"$what\" is wrong\n";
            push @{ $differs{$block} }, \@texts;
        }
    }
    return $whole;
}

# Directives for a block of the suite, which is about plain objects if there are none. Its expected
# response gets what is different with groups.
sub prepare {
    my ($block) = @_;
    my ($number) = ( $block->name // '' ) =~ /^TEST (\d+)\b/;
    return config() if !defined $number;
    return          if $plain{$number} && $ENV{TEST_NGINX_UPSTREAM} ne 'all';
    for my $change ( @{ $differs{$number} // [] } ) {
        my ( $from, $to ) = @$change;
        my $found;
        for my $section (qw( response_body response_body_like )) {
            my $text = $block->$section // next;
            $found += $text =~ s/\Q$from\E/$to/g;
            $block->set_value( $section => $text );
        }
        $found or die "TestEnv: $LIST: no \"$from\" in the response of TEST $number\n";
    }
    return config();
}

# Ports for servers that the suite's Lua makes: only known ones can have an upstream.
sub fakes {
    $fakes //= [ map { TestEnv::Ports::next_port() } 1 .. 32 ];
    return @$fakes;
}

# Text for an http block: each port of this process that a server may have is that of an upstream.
sub config {
    my $config = '';
    for my $port ( TestEnv::Ports::taken() ) {
        next if $port == $ENV{TEST_NGINX_SERVER_PORT};
        $config .= "upstream one_$port { server 127.0.0.1:$port; }\n"
            . "lua_memcached_upstream 127.0.0.1:$port one_$port;\n";
    }
    return $config;
}

1;
__END__

=head1 NAME

TestEnv::Upstream - suites whose objects go to upstreams of one server

=head1 DESCRIPTION

With C<TEST_NGINX_UPSTREAM>, C<connect("127.0.0.1", PORT)> goes to an upstream whose only server is
that one. F<t/lib/upstream.tsv> has what cannot be the same, each with the reason: suites that are left
out, blocks that stay with plain objects, and texts of responses, C<OLD =E<gt> NEW>. With the value
C<all> no block stays with plain objects.

=cut
