package Test::Nginx::Socket::Leak;

use strict;
use warnings;

use List::Util qw( max min sum );
use Time::HiRes qw( time );

use Test::Nginx::Socket::Client   ();
use Test::Nginx::Socket::Request  ();
use Test::Nginx::Socket::Settings qw( %S seconds );

my $SAMPLES = $ENV{TEST_NGINX_CHECK_LEAK_COUNT} || 100;
my $SECONDS = $ENV{TEST_NGINX_CHECK_LEAK_SECONDS} || 3;     # for a block, about
my $KB      = 60;    # growth, over all samples, that is no noise
my $LEAST   = 200;    # rounds that say anything

# For the server block: memory is looked at when there is no garbage.
sub location { return 'location = /leak-check { content_by_lua_block { collectgarbage() collectgarbage() } }' }

# Why the block cannot be measured, or undef.
sub unfit {
    my ($block) = @_;
    return $block->no_check_leak if defined $block->no_check_leak;
    return 'its server serves one connection' if defined $block->tcp_listen;
    return 'it is about the end of nginx'     if defined $block->shutdown_error_log;
    return;
}

# Asks the block's requests over and over. One test: memory does not grow, nor does the number of
# open descriptors.
sub check {
    my ( $block, $pid ) = @_;
    my $name = $block->name;
    my @requests = Test::Nginx::Socket::Request::from_block($block);
    my $timeout  = seconds( scalar $block->timeout ) // $S{timeout};
    my $round    = sub {
        Test::Nginx::Socket::Client::talk( $block, $_, $timeout ) for @requests;
    };
    my $from = time;
    $round->() for 1 .. 3;
    my $rounds = $SECONDS / ( ( time - $from ) / 3 );
    if ( $rounds < $LEAST ) {
        Test::More::diag("$name - not measured: it takes too long");
        return;
    }
    my $samples = min( $SAMPLES, int $rounds );
    my $per     = min( 50, int( $rounds / $samples ) );
    my $settle
        = [ { value => Test::Nginx::Socket::Request::build( $name, 'GET /leak-check', '', 'close' ) } ];
    my ( $fine, $figures );
    # What grows once, while pools and buffers fill, does not grow a second time.
    for ( 1 .. 2 ) {
        $round->() for 1 .. $per * $samples / 3;
        my ( @memory, @fds );
        for ( 1 .. $samples ) {
            $round->() for 1 .. $per;
            Test::Nginx::Socket::Client::talk( $block, $settle, $timeout );
            push @memory, resident($pid);
            push @fds,    scalar( () = glob "/proc/$pid/fd/*" );
        }
        my $growth = slope(@memory) * $samples;
        my $more   = max( @fds[ -10 .. -1 ] ) - max( @fds[ 0 .. 9 ] );
        $figures = sprintf '%d rounds of requests: %+.0f KB (%d KB at the end), %+d descriptors',
            $per * $samples, $growth, $memory[-1], $more;
        last if $fine = $growth < $KB && $more <= 2;
    }
    Test::More::ok( $fine, "$name - no leak in $figures" );
    return;
}

# KB per sample, by least squares.
sub slope {
    my @y = @_;
    my $mx = $#y / 2;
    my $my = sum(@y) / @y;
    return sum( map { ( $_ - $mx ) * ( $y[$_] - $my ) } 0 .. $#y )
        / sum( map { ( $_ - $mx )**2 } 0 .. $#y );
}

sub resident {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/status" or return 0;
    while (<$file>) { return $1 if /^VmRSS:\s*(\d+)/ }
    return 0;
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::Leak - memory and descriptors while a block is repeated (TEST_NGINX_CHECK_LEAK)

=cut
