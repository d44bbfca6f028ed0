package SoakFaults;

use strict;
use warnings;

use Time::HiRes qw( time );

use SoakProxy ();
use TestCerts ();
use TestEnv   ();

# The servers of scripts/soak, what is done to them, and whether that is the cause of an error.

my $AFTER = 1;      # seconds after a fault in which connections may still turn out to be broken
my $CATCH_UP = 4;   # and in which a server that was held up may still be late, on a busy machine
my $SKEW  = 0.1;    # of the clocks of nginx and ours
my $UNSETTLED = 10; # and in which a server of a group may be disabled
my $MEMBERS   = 5;  # of the group
my $KEEP  = 120;    # seconds after which no error of that time can come any more

my $LOST   = qr/\A(?:closed|connection reset by peer|broken pipe)\z/;
my $NOBODY = qr/\A(?:connection refused|no such file or directory|handshake failed)\z/;
my $DISABLED = qr/\Ano live upstreams\z/;
# A server that is starting, on a busy machine, may be late. What is behind a command that
# one of the others has given up may be closed.
my $RESTART = qr/$LOST|$NOBODY|\Atimeout\z/;
my $STOP    = qr/\A(?:timeout|closed)\z/;
my %EXPLAINS = (
    # of a group: one of its servers
    'group restart' => qr/$RESTART|$DISABLED/,
    'group stop'    => qr/$STOP|$DISABLED/,
    'group mark'    => $DISABLED,
    restart => $RESTART,
    cut     => $LOST,
    stop    => $STOP,
    stall   => qr/\Atimeout\z/,
    split   => qr/\Atimeout\z/,
    # and on shared connections what was behind it
    dead    => qr/\A(?:ERROR|closed)\z/,
    # a shared connection is closed if the command that had so little time was sent in part
    'short timeout' => qr/\Aclosed\z/,
);

# When memcached moves items to other pages, their cas uniques change.
my @ARGS = qw( -I 2m -m 1024 -c 4096 -t 2 -o slab_automove=0 );

# `share`: of 100 sessions. `faults`: what happens to it. Only that of this name is used, if given.
sub start {
    my ( $class, $only ) = @_;
    my @servers = (
        { name => 'quiet', share => 25, quiet => 1, faults => [] },
        { name => 'tcp', share => 25, loses => 1, faults => [qw( restart stop )] },
        { name => 'unix', share => 25, loses => 1, faults => [qw( restart stop )],
            where => [ sock => TestEnv::Memcached::sock_path('soak.sock') ] },
        { name => 'proxy', share => 15, faults => [qw( cut stall split dead )] },
        { name => 'tls', share => 10, loses => 1, tls => 1, faults => [qw( restart stop )],
            args => TestCerts::memcached_args('good') },
        { name => 'group', share => 30, loses => 1, group => 1, faults => [ ( 'group restart', 'group stop', 'group mark' ) x 2 ] },
    );
    if ( defined $only ) {
        $_->{share} = 0 + ( $_->{name} eq $only ) for @servers;
    }
    my $index = 0;
    for my $server (@servers) {
        $server->{index} = ++$index;
        $server->{args} = [ @ARGS, @{ $server->{args} || [] } ];
        if ( $server->{group} ) {
            $server->{members} = [ map { TestEnv::start_memcached( args => $server->{args} ) } 1 .. $MEMBERS ];
            next;
        }
        $server->{address}
            = TestEnv::start_memcached( @{ $server->{where} || [] }, args => $server->{args} );
        $server->{port} = $server->{address};
        if ( $server->{name} eq 'proxy' ) {
            $server->{port}  = TestEnv::free_port();
            $server->{proxy} = SoakProxy->start( $server->{port}, $server->{address} );
        }
    }
    return bless { servers => \@servers, done => {}, errors => {}, doubtful => [] }, $class;
}

sub servers { return @{ $_[0]{servers} } }

# The addresses of all memcacheds.
sub addresses { return map { $_->{members} ? @{ $_->{members} } : $_->{address} } @{ $_[0]{servers} } }

# The upstream block of the group. Its keys do not move while a server is away, only when another list is
# configured: `order` says which.
sub block {
    my ( $self, $order ) = @_;
    my ($group) = grep { $_->{group} } $self->servers;
    my @ports = @{ $group->{members} };
    splice @ports, $order % @ports, 1;
    return 'upstream soak_group { zone soak_group 64k; hash $lua_memcached_key consistent; lua_memcached_failover off; '
        . join( ' ', map {"server 127.0.0.1:$_ max_fails=1 fail_timeout=1s;"} @ports ) . ' }';
}

# The list that load.lua wants.
sub lua {
    my ($self) = @_;
    return join '', map {
        my $server = $_;
        my ( $host, $port )
            = $server->{group}             ? ( 'soak_group', 'nil' )
            : $server->{port} =~ m{/} ? ( "unix:$server->{port}", 'nil' )
            :                           ( '127.0.0.1', $server->{port} );
        my $flags = join '', map { $server->{$_} ? ", $_ = true" : '' } qw( loses quiet tls group );
        qq({ name = "$server->{name}", host = "$host", port = $port, share = $server->{share}$flags },\n);
    } $self->servers;
}

# Does something to some server. `notify`: how all workers get to know that it loses everything.
sub make {
    my ( $self, $notify ) = @_;
    my @free = grep { @{ $_->{faults} } && $_->{share} && !$_->{pending} } $self->servers or return;
    my $server  = $free[ rand @free ];
    my $what    = $server->{faults}[ rand @{ $server->{faults} } ];
    my $seconds = 0.02 + rand 0.6;
    # Longer than what some of the operations wait.
    $seconds += 1.2 if $what =~ /st(?:op|all)/ && rand() < 0.25;
    $self->{done}{$what}++;
    my $fault = { what => $what, from => time, end => sub { } };
    my $address = $server->{group} ? $server->{members}[ rand $MEMBERS ] : $server->{address};
    if ( $what =~ /restart/ ) {
        $notify->("epoch_$server->{index}");
        $fault->{from} = time;
        TestEnv::stop_memcached($address);
        $fault->{end} = sub {
            my $key = $address =~ m{/} ? 'sock' : 'port';
            TestEnv::start_memcached( $key => $address, args => $server->{args} );
            $notify->("epoch_$server->{index}");
        };
    }
    elsif ( $what eq 'group mark' ) {
        $notify->( 'mark', $address );
        $fault->{end} = sub { $notify->( 'unmark', $address ) };
    }
    elsif ( $what =~ /stop/ ) {
        my $pid = TestEnv::Memcached::pid($address);
        kill STOP => $pid;
        $fault->{end} = sub { kill CONT => $pid };
    }
    else {
        $seconds = 0.2 if $what eq 'cut';
        $server->{proxy}->tell( $what eq 'cut' ? $what : "$what $seconds" );
    }
    $fault->{till} = time + $seconds;
    $server->{pending} = $fault;
    push @{ $server->{past} }, $fault;
    return;
}

# Ends what has lasted long enough, or all of it.
sub end {
    my ( $self, $all ) = @_;
    for my $server ( $self->servers ) {
        my $fault = $server->{pending} or next;
        next if !$all && time < $fault->{till};
        $fault->{end}->();
        $fault->{till} = time if time > $fault->{till} || $fault->{what} =~ /restart|stop|mark/;
        delete $server->{pending};
        shift @{ $server->{past} } while $server->{past}[0]{till} < time - $KEEP;
    }
    return;
}

# Servers that ended by themselves.
sub died {
    my ($self) = @_;
    my @died;
    for my $server ( grep { !$_->{pending} || $_->{pending}{what} !~ /restart/ } $self->servers ) {
        for my $address ( $server->{group} ? @{ $server->{members} } : $server->{address} ) {
            my $status = TestEnv::Child::ended( TestEnv::Memcached::pid($address) ) // next;
            push @died, sprintf 'the memcached %s died, wait status %d', $server->{name}, $status;
        }
    }
    return @died;
}

sub pending { return scalar grep { $_->{pending} } $_[0]->servers }

# Errors of operations. What is wrong with them. A cause may become known after its effect: what has none
# yet is looked at once more, the next time.
sub judge {
    my ( $self, @lines ) = @_;
    my ( @doubtful, @wrong );
    for my $line (@lines) {
        my ( $index, $from, $till, $what, $error ) = $line =~ /\A(\d+) ([\d.]+) ([\d.]+) ([^:]*): (.*)\z/s
            or push @wrong, "cannot read '$line'" and next;
        my $server = $self->{servers}[ $index - 1 ];
        if ( $error eq 'short timeout' ) {
            push @{ $server->{past} }, { what => $error, from => $from, till => $till };
            next;
        }
        $self->{errors}{"$server->{name}: $error"}++;
        push @doubtful, [ $server, $from, $till, $what, $error ];
    }
    push @wrong, map { $self->unexplained(@$_) } splice @{ $self->{doubtful} };
    $self->{doubtful} = [ grep { $self->unexplained(@$_) } @doubtful ];
    return @wrong;
}

# An error is explained by a fault of its kind between the time its connection was good, or a little before,
# and the time it failed. What is wrong, or nothing.
sub unexplained {
    my ( $self, $server, $from, $till, $what, $error ) = @_;
    for my $fault ( @{ $server->{past} } ) {
        next if $error !~ $EXPLAINS{ $fault->{what} };
        my $after
            = $fault->{what} eq 'short timeout' ? $SKEW
            : $error eq 'timeout'               ? $CATCH_UP
            : $error =~ $DISABLED               ? $UNSETTLED
            :                                     $AFTER;
        my $over = $fault == ( $server->{pending} // 0 ) ? 9**9**9 : $fault->{till} + $after;
        return if $fault->{from} - $SKEW <= $till && $from <= $over;
    }
    my @last = grep { $_->{from} < $till && $_->{till} > $till - 5 } @{ $server->{past} || [] };
    return sprintf '%s on %s failed at %.3f, good at %.3f, without a cause: %s%s', $what, $server->{name},
        $till, $from, $error, join '', map { sprintf ' (%s: %.3f to %.3f)', @$_{qw( what from till )} } @last;
}

# File descriptors of the memcacheds and connections of the proxy, by name.
sub open_files {
    my ($self) = @_;
    my %open;
    for my $server ( $self->servers ) {
        my @fds = map { glob '/proc/' . TestEnv::Memcached::pid($_) . '/fd/*' }
            $server->{group} ? @{ $server->{members} } : $server->{address};
        $open{ $server->{name} } = @fds;
        $open{'proxy connections'} = 0 + $server->{proxy}->connections if $server->{proxy};
    }
    return \%open;
}

sub done   { return $_[0]{done} }
sub errors { return $_[0]{errors} }

sub stop {
    my ($self) = @_;
    $self->end(1);
    for ( $self->servers ) { $_->{proxy}->stop if $_->{proxy} }
    return;
}

1;
