package Endpoint;

use strict;
use warnings;

use File::Spec ();
use File::Temp ();
use IO::Select ();
use IO::Socket::INET;
use Socket qw( SOMAXCONN );
use Storable ();
use Time::HiRes qw( sleep time );

# Seconds between two looks at what is to be said.
my $LOOK = 0.02;

# Those that run.
my @started;

# Bytes of "flood".
my $FLOOD = 100 * 1024 * 1024;

# Starts a process that listens on $count ports. It ends with the suite.
sub start {
    my ( $class, $count ) = @_;
    require TestEnv;
    my $dir   = File::Temp->newdir( 'endpointXXXXXX', TMPDIR => 1 );
    my @ports = map { TestEnv::free_port() } 1 .. $count;
    my $self  = bless { dir => $dir, ports => \@ports, owner => $$ }, $class;
    $self->says( $_, {} ) for @ports;
    $self->{child} = TestEnv::Child::spawn( [ $^X, File::Spec->rel2abs(__FILE__), "$dir", @ports ] );
    my $until = time + 10;
    while ( time < $until ) {
        if ( -e "$dir/ready" ) {
            push @started, $self;
            return $self;
        }
        sleep 0.01;
    }
    die "Endpoint: does not start\n";
}

sub ports { return @{ $_[0]{ports} } }

# What a port answers from now on: { "config get cluster" => ANSWER, get => ANSWER, ... }, by the whole
# line or its first word. An answer is a text; a list of them, of which the last repeats; or one of
# { close => TEXT }, { late => [SECONDS, TEXT] }, { flood => TEXT }. Without one nothing is answered.
# Undef: the port is closed, and so are its connections. Returns when it is so.
sub says {
    my ( $self, $port, $answers ) = @_;
    my $path   = "$self->{dir}/says.$port";
    my $serial = ++$self->{serial};
    Storable::store( { answers => $answers, serial => $serial }, "$path.new" );
    rename "$path.new", $path or die "Endpoint: $!\n";
    my $until = time + 10;
    while ( $self->{child} && !-e "$self->{dir}/took.$serial" ) {
        die "Endpoint: does not take what it is told\n" if time > $until;
        sleep 0.005;
    }
    return;
}

# An answer with a list of servers, "host|ip|port".
sub list {
    my ( $version, @nodes ) = @_;
    return whole( "$version\n" . join( q{ }, @nodes ) . "\n" );
}

sub whole {
    my ($text) = @_;
    return 'CONFIG cluster 0 ' . length($text) . "\r\n$text\r\nEND\r\n";
}

# All that has come to a port: [ time, event, number of the connection ]. Events are "opened", "closed",
# or the line of a question.
sub seen {
    my ( $self, $port ) = @_;
    open my $in, '<', "$self->{dir}/seen.$port" or return;
    return map { chomp; [ split /\t/ ] } readline $in;
}

# How often a question came to a port.
sub asked {
    my ( $self, $port, $question ) = @_;
    return scalar grep { $_->[1] eq $question } $self->seen($port);
}

# Number of connections that are open at a port.
sub connections {
    my ( $self, $port ) = @_;
    return $self->asked( $port, 'opened' ) - $self->asked( $port, 'closed' );
}

sub stop {
    my ($self) = @_;
    my $child = delete $self->{child};
    TestEnv::Child::stop( $child, TERM => 2 ) if $child && $self->{owner} == $$;
    return;
}

# before the directories go
END { $_->stop for @started }

# The process. What a port has: its listener, its answers, how often each was given.

my ( $dir, %port, %peer, @due );
my $all    = IO::Select->new;
my $serial = 0;

sub serve {
    ( $dir, my @ports ) = @_;
    local $SIG{PIPE} = 'IGNORE';
    for my $number (@ports) {
        open my $log, '>>', "$dir/seen.$number" or die "Endpoint: $!\n";
        $log->autoflush;
        $port{$number} = { number => $number, log => $log };
    }
    look();
    open my $ready, '>', "$dir/ready" or die "Endpoint: $!\n";
    close $ready;
    while ( -d $dir ) {
        for my $socket ( $all->can_read($LOOK) ) {
            my $who = $peer{$socket};
            if    ($who) { readable( $who, $socket ) }
            else         { accepted($socket) }
        }
        look() if -d $dir;
        while ( @due && $due[0][0] <= time ) {
            my ( undef, $socket, $text ) = @{ shift @due };
            syswrite $socket, $text if $peer{$socket};
        }
    }
    return;
}

sub look {
    for my $one ( values %port ) {
        # inodes are used again
        my $state = join q{ }, ( Time::HiRes::stat("$dir/says.$one->{number}") )[ 1, 9 ];
        next if $one->{state} && $one->{state} eq $state;
        my $said = Storable::retrieve("$dir/says.$one->{number}");
        @$one{qw( state answers given )} = ( $state, $said->{answers}, {} );
        if ( $one->{answers} && !$one->{listener} ) {
            $one->{listener} = IO::Socket::INET->new(
                LocalAddr => '127.0.0.1',
                LocalPort => $one->{number},
                Listen    => SOMAXCONN,
                ReuseAddr => 1,
            ) or die "Endpoint: $one->{number}: $!\n";
            $all->add( $one->{listener} );
        }
        elsif ( !$one->{answers} && $one->{listener} ) {
            $all->remove( $one->{listener} );
            close delete $one->{listener};
            closed( $_->{socket} ) for grep { $_->{port} == $one } values %peer;
        }
        open my $took, '>', "$dir/took.$said->{serial}" or next;
        close $took;
    }
    return;
}

sub note {
    my ( $one, $event, $number ) = @_;
    print { $one->{log} } join( "\t", time, $event, $number ), "\n";
    return;
}

sub accepted {
    my ($listener) = @_;
    my $socket = $listener->accept or return;
    my ($one) = grep { $_->{listener} && $_->{listener} == $listener } values %port;
    $peer{$socket} = { port => $one, socket => $socket, number => ++$serial, in => '' };
    $all->add($socket);
    note( $one, 'opened', $serial );
    return;
}

sub closed {
    my ($socket) = @_;
    my $who = delete $peer{$socket} or return;
    $all->remove($socket);
    close $socket;
    note( $who->{port}, 'closed', $who->{number} );
    return;
}

sub readable {
    my ( $who, $socket ) = @_;
    return closed($socket) if !sysread $socket, $who->{in}, 65536, length $who->{in};
    while ( $peer{$socket} && $who->{in} =~ s/\A([^\r\n]*)\r?\n// ) {
        note( $who->{port}, $1, $who->{number} );
        answer( $who->{port}, $socket, $1 );
    }
    return;
}

sub answer {
    my ( $one, $socket, $line ) = @_;
    my ($verb) = split / /, $line;
    my $name = exists $one->{answers}{$line} ? $line : $verb;
    my $said = $one->{answers}{$name};
    if ( ref $said eq 'ARRAY' ) {
        my $at = $one->{given}{$name}++;
        $said = $said->[ $at < @$said ? $at : -1 ];
    }
    return                                  if !defined $said;
    return syswrite $socket, $said          if !ref $said;
    if ( $said->{late} ) {
        push @due, [ time + $said->{late}[0], $socket, $said->{late}[1] ];
        @due = sort { $a->[0] <=> $b->[0] } @due;
        return;
    }
    syswrite $socket, $said->{close} // $said->{flood};
    if ( $said->{flood} ) {
        my $left = $FLOOD;
        while ( $left > 0 ) {
            $left -= syswrite( $socket, 'x' x 65536 ) || last;
        }
        note( $one, "flooded $left", 0 );
    }
    return closed($socket);
}

# Run as a program, it is the process.
serve(@ARGV) if !caller;

1;
__END__

=head1 NAME

Endpoint - servers that answer what they are told to, and keep a record

=head1 SYNOPSIS

    my $endpoint = Endpoint->start(2);
    my ($port) = $endpoint->ports;
    $endpoint->says( $port, { 'config get cluster' => Endpoint::list( 1, 'a|127.0.0.1|11211' ) } );
    is( $endpoint->asked( $port, 'config get cluster' ), 1 );

=head1 DESCRIPTION

For suites about what a worker asks by itself: which servers a cluster has, and whether a server is there
again. All ports belong to one process, which ends with the suite.

=cut
