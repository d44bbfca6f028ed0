package TestEnv::Child;

use strict;
use warnings;

use POSIX qw( WNOHANG );
use Time::HiRes qw( sleep time );

# prctl(2) by machine: perl has no wrapper. Elsewhere a killed test leaves its children behind.
my %PRCTL           = ( x86_64 => 157, aarch64 => 167 );
my $PR_SET_PDEATHSIG = 1;
my $PRCTL           = $PRCTL{ ( POSIX::uname() )[4] };

# Starts @$cmd and returns its pid.
#   user   => name   drop root's rights to that user
#   stdout => path, stderr => path   redirections (opened for appending)
sub spawn {
    my ( $cmd, %opt ) = @_;
    my $parent = $$;
    my $pid    = fork;
    defined $pid or die "fork: $!\n";
    return $pid if $pid;

    setpgrp;    # one signal reaches workers too
    $SIG{$_} = 'DEFAULT' for qw( HUP INT TERM QUIT CHLD );
    delete @SIG{qw( __DIE__ __WARN__ )};
    eval {
        open STDIN, '<', '/dev/null' or die "stdin: $!";
        if ( $opt{stdout} ) { open STDOUT, '>>', $opt{stdout} or die "stdout: $!" }
        if ( $opt{stderr} ) { open STDERR, '>>', $opt{stderr} or die "stderr: $!" }
        drop_rights( $opt{user} ) if defined $opt{user} && $> == 0;
        # After the change of user, which would clear it.
        syscall $PRCTL, $PR_SET_PDEATHSIG, POSIX::SIGTERM(), 0, 0, 0 if $PRCTL;
        POSIX::_exit(127) if getppid != $parent;
        no warnings 'exec';
        exec { $cmd->[0] } @$cmd or die "exec $cmd->[0]: $!";
    };
    print STDERR "TestEnv: $@";
    POSIX::_exit(127);
}

sub drop_rights {
    my ($user) = @_;
    my ( $uid, $gid ) = ( getpwnam $user )[ 2, 3 ];
    defined $uid or die "no user $user";
    local $! = 0;
    $) = "$gid $gid";
    POSIX::setgid($gid) or die "setgid: $!";
    POSIX::setuid($uid) or die "setuid: $!";
    return;
}

# The wait status if the child has ended, undef while it runs.
sub ended {
    my ($pid) = @_;
    my $got = waitpid $pid, WNOHANG;
    return $got == $pid ? $? : $got < 0 ? 0 : undef;
}

# Sends $signal, waits up to $seconds, then kills the whole group.
# Returns the wait status, or undef if it had to be killed.
sub stop {
    my ( $pid, $signal, $seconds ) = @_;
    local $?;
    kill $signal, $pid;
    my $until = time + $seconds;
    my $nap   = 0.001;
    while (1) {
        my $status = ended($pid);
        if ( defined $status ) {
            kill KILL => -$pid;    # a worker that outlived its master
            return $status;
        }
        last if time > $until;
        sleep $nap;
        $nap *= 1.5 if $nap < 0.01;
    }
    kill KILL => -$pid;
    kill KILL => $pid;
    waitpid $pid, 0;
    return;
}

1;
__END__

=head1 NAME

TestEnv::Child - child processes that do not outlive the test

=head1 DESCRIPTION

C<spawn(\@command, %options)> returns a pid, C<ended(PID)> the wait status or undef,
C<stop(PID, SIGNAL, SECONDS)> ends it. A child leads its own process group and, on Linux, gets SIGTERM
when the test dies without running its END blocks.

=cut
