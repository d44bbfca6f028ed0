package LiveNginx;

use strict;
use warnings;

use File::Path ();
use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw( sleep time );

use TestEnv;

# Starts nginx with its own prefix directory; waits until it accepts connections.
#   http   => text for the http block, ahead of the server
#   server => text for the server block
#   main   => text ahead of everything (default: one worker)
#   private => why this may not run over shared connections (TEST_NGINX_MULTIPLEX)
#   whole   => why it may not get its bytes one by one (see TestEnv)
#   connections => worker_connections (default 512)
#   daemon => 1: it detaches itself, which the change of binaries needs
# Returns an object; everything it started ends with it.
sub start {
    my ( $class, %opt ) = @_;
    my $dir = File::Temp->newdir( 'liveXXXXXX', TMPDIR => 1 );
    chmod 0755, "$dir";
    mkdir "$dir/$_" for qw( logs temp );
    my $self = bless { dir => $dir, port => TestEnv::free_port(), owner => $$ }, $class;
    my $load  = join '', map {"load_module $_;\n"} split ' ', $ENV{TEST_NGINX_LOAD_MODULES};
    my $main  = $opt{main} // "worker_processes 1;\n";
    my $connections = $opt{connections} // 512;
    my $daemon = $opt{daemon} ? 'on' : 'off';
    my $temps = join '', map {"${_}_temp_path temp;\n"} qw( client_body proxy fastcgi uwsgi scgi );
    my $groups = TestEnv::upstream_config();
    my $shared = defined $opt{private} ? '' : TestEnv::multiplex_config( $opt{http} );
    open my $conf, '>', "$dir/nginx.conf" or die "LiveNginx: $!\n";
    print {$conf} <<"END" or die "LiveNginx: $!\n";
$load
daemon $daemon;
pid logs/nginx.pid;
error_log logs/error.log info;
$main
events { worker_connections $connections; accept_mutex off; }
http {
    access_log off;
    $temps
    $groups
    $shared
    $opt{http}
    server {
        listen 127.0.0.1:$self->{port};
        $opt{server}
    }
}
END
    close $conf or die "LiveNginx: $!\n";
    my ($binary) = grep {-x} $ENV{TEST_NGINX_BINARY} || (),
        map {"$_/nginx"} split( /:/, $ENV{PATH} ), '/usr/sbin';
    TestEnv::set_whole( $opt{whole} );
    $self->{pid} = TestEnv::Child::spawn(
        [ $binary, '-p', "$dir/", '-c', 'nginx.conf', '-e', 'logs/error.log' ],
        stderr => "$dir/logs/stderr",
    );
    my $child = $self->{pid};
    # it listens before it has a worker
    my $worker = $opt{daemon} || $main =~ /master_process\s+off/ ? sub {1} : sub { $self->workers };
    $self->wait_for( sub { $self->answers && $worker->() }, 60 )
        or die "LiveNginx: does not start\n" . $self->log . slurp("$dir/logs/stderr");
    return $self if !$opt{daemon};
    $self->wait_for( sub { defined TestEnv::Child::ended($child) } );
    chomp( $self->{pid} = slurp("$dir/logs/nginx.pid") );
    return $self;
}

sub port { return $_[0]{port} }
sub pid  { return $_[0]{pid} }
sub log  { return slurp("$_[0]{dir}/logs/error.log") }

# Changes the configuration file: the code sees it in $_. To be followed by HUP.
sub configure {
    my ( $self, $change ) = @_;
    my $path = "$self->{dir}/nginx.conf";
    local $_ = slurp($path);
    $change->();
    open my $conf, '>', "$path.new" or die "LiveNginx: $!\n";
    print {$conf} $_ or die "LiveNginx: $!\n";
    close $conf or die "LiveNginx: $!\n";
    # at once: nginx may be reading it
    rename "$path.new", $path or die "LiveNginx: $!\n";
    return;
}

# From now on another master counts (after a change of binaries).
sub follow { $_[0]{pid} = $_[1]; return }

sub answers {
    my ($self) = @_;
    return defined IO::Socket::INET->new( PeerAddr => "127.0.0.1:$self->{port}", Timeout => 1 );
}

# The body of an answer, or undef if there was no whole one.
sub get {
    my ( $self, $path ) = @_;
    my $socket = IO::Socket::INET->new( PeerAddr => "127.0.0.1:$self->{port}", Timeout => 5 ) or return;
    print {$socket} "GET $path HTTP/1.0\r\nHost: localhost\r\n\r\n" or return;
    my ( $answer, $watch ) = ( '', IO::Select->new($socket) );
    # a master without a worker listens, and answers nothing
    while ( $watch->can_read(30) ) {
        sysread( $socket, $answer, 65536, length $answer ) or last;
    }
    my ( $code, $body ) = $answer =~ m{\AHTTP/1\.1 (\d+).*?\r\n\r\n(.*)\z}s or return;
    return $code == 200 ? $body : "status $code";
}

sub signal {
    my ( $self, $name, $pid ) = @_;
    return kill $name => $pid // $self->{pid};
}

# Processes whose parent is the master (or another pid).
sub workers {
    my ( $self, $parent ) = @_;
    $parent //= $self->{pid};
    my @pids = map {m{(\d+)}} glob '/proc/[0-9]*';
    @pids = sort { $a <=> $b } grep { ( parent_of($_) // 0 ) == $parent } @pids;
    return @pids;
}

# undef for a process that is gone, or a zombie.
sub parent_of {
    my ($pid) = @_;
    my ( $state, $parent ) = slurp("/proc/$pid/stat") =~ /\A\d+ \(.*\) (\S) (\d+)/ or return;
    return $state eq 'Z' ? undef : $parent;
}

sub alive { return defined parent_of( $_[-1] ) }

# Seconds until the condition held, or undef if it did not within $limit.
sub wait_for {
    my ( undef, $condition, $limit ) = @_;
    my $from = time;
    until ( $condition->() ) {
        return if time - $from > ( $limit // 5 );
        sleep 0.01;
    }
    return ( time - $from ) || 1e-6;
}

# Forks $count clients that ask for $path over and over until told to stop.
sub load {
    my ( $self, $path, $count, $want ) = @_;
    pipe my $stop_reader, my $stop or die "pipe: $!\n";
    my @clients;
    for ( 1 .. $count ) {
        pipe my $reader, my $writer or die "pipe: $!\n";
        my $pid = fork // die "fork: $!\n";
        if ( !$pid ) {
            close $stop;
            $self->hammer( $path, $want, $stop_reader, $writer );
            POSIX::_exit(0);
        }
        push @clients, { pid => $pid, result => $reader };
    }
    return { stop => $stop, clients => \@clients };
}

sub hammer {
    my ( $self, $path, $want, $stop, $out ) = @_;
    my $watch = IO::Select->new($stop);
    my ( $right, %wrong ) = (0);
    until ( $watch->can_read(0) ) {
        my $got = $self->get("$path?key=$$-$right") // 'no answer';
        if   ( $got =~ $want ) { $right++ }
        else                   { $wrong{$got}++; sleep 0.01 }
    }
    syswrite $out, join "\n", $right, map {"$wrong{$_} x $_"} sort keys %wrong;
    return;
}

# (number of right answers, texts about the others)
sub end_load {
    my ( undef, $load ) = @_;
    close $load->{stop};
    my ( $right, @wrong ) = (0);
    for my $client ( @{ $load->{clients} } ) {
        my $text = do { local $/; readline $client->{result} }
            // '';
        my ( $n, @lines ) = split /\n/, $text;
        $right += $n // 0;
        push @wrong, @lines;
        local $?;
        waitpid $client->{pid}, 0;
    }
    return ( $right, @wrong );
}

# Lines of error.log at these levels.
sub log_lines {
    my ( $self, @levels ) = @_;
    my $levels = join '|', @levels;
    return grep {/\[(?:$levels)\]/} split /\n/, $self->log;
}

# Ends nginx gracefully: seconds it took, or undef.
sub quit {
    my ( $self, $limit ) = @_;
    my $pid = $self->{pid};
    $self->signal('QUIT');
    my $took = $self->wait_for( sub { TestEnv::Child::ended($pid); !alive($pid) }, $limit );
    delete $self->{pid} if $took;
    return $took;
}

sub DESTROY {
    my ($self) = @_;
    return if $$ != $self->{owner} || !$self->{pid};
    local ( $?, $@, $! );
    kill TERM => $self->{pid};
    $self->wait_for( sub { TestEnv::Child::ended( $self->{pid} ); !alive( $self->{pid} ) }, 3 )
        or TestEnv::Child::stop( $self->{pid}, KILL => 1 );
    return;
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

LiveNginx - an nginx of one's own, to be signalled while clients use it

=head1 SYNOPSIS

    my $nginx = LiveNginx->start(http => $conf, server => 'location / { ... }');
    my $load  = $nginx->load('/', 4, qr/\Ayes/);
    $nginx->signal('HUP');
    my ($right, @wrong) = $nginx->end_load($load);

=head1 DESCRIPTION

For what the format of Test::Nginx has no words for: reloads and upgrades under load, killed
workers, several workers. It loads the modules that L<TestEnv> chose.

=cut
