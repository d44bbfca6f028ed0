package Test::Nginx::Socket::Reload;

use strict;
use warnings;

use Time::HiRes qw( sleep time );

use Test::Nginx::Socket::Settings qw( %S path );

my $count = 0;
my ( @old_logs, @old_workers );

# Before a reload. The old workers go on writing to the old files; the new ones find none.
sub set_logs_aside {
    my ($master) = @_;
    look_back();
    $count++;
    @old_workers = workers($master);
    my $log = path("logs/error.log.$count");
    rename path('logs/error.log'), $log;
    unlink path('logs/access.log');
    # What is there by now belongs to the block that has ended.
    push @old_logs, { path => $log, from => -s $log || 0, master => $master };
    return;
}

# Returns undef once there are new workers and the old ones accept no more, else what went wrong.
sub reload {
    my ($master) = @_;
    my %old = map { $_ => 1 } @old_workers;
    kill HUP => $master;
    my $until = time + 20;
    while ( time < $until ) {
        my @now = workers($master);
        if ( grep( { !$old{$_} } @now ) && !grep { $old{$_} && !is_leaving($_) } @now ) {
            pass_on();
            return;
        }
        sleep 0.005;
    }
    return "nginx does not reload\n" . substr slurp( $old_logs[-1]{path} ), $old_logs[-1]{from};
}

# What the master said of the new configuration went to the old file.
sub pass_on {
    my $log = $old_logs[-1];
    open my $out, '>>', path('logs/error.log') or return;
    print {$out} grep {/\] $log->{master}#/} split /^/, substr slurp( $log->{path} ), $log->{from};
    close $out;
    return;
}

# Fails for what old workers said to their end. Those that are still there are looked at later.
sub look_back {
    for my $log (@old_logs) {
        my $text = slurp( $log->{path} );
        for my $line ( split /\n/, substr $text, $log->{from} ) {
            next if $line !~ /\[(?:alert|crit|emerg)\] (\d+)#/ || $1 == $log->{master};
            Test::More::fail("an old worker said: $line");
        }
        $log->{from} = length $text;
    }
    splice @old_logs, 0, -20 if @old_logs > 20;
    return;
}

# The living children of a process.
sub workers {
    my ($master) = @_;
    return grep { slurp("/proc/$_/stat") =~ /\A\d+ \(.*\) [^Z] \Q$master\E / }
        map {m{(\d+)}} glob '/proc/[0-9]*';
}

sub is_leaving {
    my ($pid) = @_;
    return slurp("/proc/$pid/cmdline") =~ /shutting down/;
}

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or return '';
    local $/;
    return scalar(<$file>) // '';
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::Reload - one nginx for all blocks, reloaded (TEST_NGINX_USE_HUP)

=cut
