package LineServer;

use strict;
use warnings;

use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw( time );

# A server of the text protocol that answers what $answer says. That gets a command's line, without
# its end, and how many have come on this connection, and returns the reply; undef to close the
# connection. What was answered before is sent then. Lines are written down: lines().
sub start {
    my ( $class, $answer ) = @_;
    my $listen = IO::Socket::INET->new( Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0, ReuseAddr => 1 )
        or die "LineServer: listen: $!\n";
    my $log = File::Temp->new;
    my $pid = fork // die "LineServer: fork: $!\n";
    if ( !$pid ) {
        local $SIG{PIPE} = 'IGNORE';
        serve( $listen, $answer, $log );
        POSIX::_exit(0);
    }
    return bless { pid => $pid, owner => $$, log => $log, port => $listen->sockport }, $class;
}

sub port { return $_[0]{port} }
sub name { return "127.0.0.1:$_[0]{port}" }

# Lines that it has got until now, of all connections.
sub lines {
    my ($self) = @_;
    open my $file, '<', "$self->{log}" or die "LineServer: $!\n";
    chomp( my @lines = <$file> );
    return @lines;
}

sub serve {
    my ( $listen, $answer, $log ) = @_;
    $log->autoflush;
    my $watch = IO::Select->new($listen);
    my ( %in, %count );
    while (1) {
        for my $socket ( $watch->can_read ) {
            if ( $socket == $listen ) { $watch->add( scalar $listen->accept ); next }
            my $key   = fileno $socket;
            my $close = !sysread $socket, $in{$key}, 65536, length( $in{$key} // '' );
            my $out   = '';
            while ( !$close && $in{$key} =~ /\A([^\r\n]*)\r\n/ ) {
                my ( $line, $size ) = ( $1, 2 + length $1 );
                if ( $line =~ /\A(?:set|add|replace|append|prepend|cas) \S+ \d+ \S+ (\d+)/ or $line =~ /\Ams \S+ (\d+)/ ) {
                    $size += 2 + $1;
                }
                last if length $in{$key} < $size;
                substr $in{$key}, 0, $size, '';
                print {$log} "$line\n" or die;
                my $reply = $answer->( $line, ++$count{$key} );
                if ( defined $reply ) { $out .= $reply }
                else                  { $close = 1 }
            }
            syswrite $socket, $out if length $out;
            next if !$close;
            $watch->remove($socket);
            delete @$_{$key} for \%in, \%count;
            shutdown $socket, 1;
            close $socket;
        }
    }
    return;
}

sub DESTROY {
    my ($self) = @_;
    return if $$ != $self->{owner};
    local $?;
    kill KILL => $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

1;
