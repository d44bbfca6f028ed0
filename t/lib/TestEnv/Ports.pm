package TestEnv::Ports;

use strict;
use warnings;

use Fcntl qw( :flock );
use IO::Socket::INET;

# Below the range from which the kernel takes ports of outgoing connections: nginx leaves its port
# between two blocks, and must find it free again.
my $FIRST  = 10_240;
my $BLOCKS = 1_300;
my $SIZE   = 16;

my ( @free, @taken, @locks );

sub next_port {
    @free = take_block() if !@free;
    return shift @free;
}

# All ports of this process, those that next_port will return too.
sub taken { return @taken }

# The lock on the block's file is held until this process ends.
sub take_block {
    my $dir = ( -w '/tmp' ? '/tmp' : $ENV{TMPDIR} || '.' ) . "/test-nginx-ports-$>";
    mkdir $dir, 0700;
    my $start = int rand $BLOCKS;
    for my $i ( 0 .. $BLOCKS - 1 ) {
        my $block = ( $start + $i ) % $BLOCKS;
        open my $lock, '>>', "$dir/$block" or die "TestEnv: $dir/$block: $!\n";
        next if !flock $lock, LOCK_EX | LOCK_NB;
        my @ports = map { $FIRST + $block * $SIZE + $_ } 0 .. $SIZE - 1;
        next if grep { !is_free($_) } @ports;
        push @locks, $lock;
        push @taken, @ports;
        return @ports;
    }
    die "TestEnv: no free ports\n";
}

sub is_free {
    my ($port) = @_;
    return defined IO::Socket::INET->new(
        LocalAddr => '0.0.0.0',
        LocalPort => $port,
        Proto     => 'tcp',
        ReuseAddr => 1,
        Listen    => 1,
    );
}

1;
__END__

=head1 NAME

TestEnv::Ports - TCP ports that no other run takes

=head1 DESCRIPTION

C<next_port()> returns a port of a block of 16 that this process has locked, so that runs side by
side never meet. C<taken()> are all of them. The ports were free when the block was taken and lie below the ephemeral range.

=cut
