package Test::Nginx::Socket::Server;

use strict;
use warnings;

use File::Path ();
use Time::HiRes qw( sleep time );

use Test::Nginx::Socket::Leak ();
use Test::Nginx::Socket::Log ();
use Test::Nginx::Socket::Reload ();
use Test::Nginx::Socket::Settings qw( %S expand path );
use TestEnv::Child ();

my $OWNER = $$;
my $pid;
my $version;
my $config;    # of the last block that had one

# A fresh prefix directory with configuration and files.
sub prepare {
    my ($block) = @_;
    # A server that goes on keeps the file with its process id.
    my @logs = defined $pid ? () : 'logs';
    Test::Nginx::Socket::Reload::set_logs_aside($pid) if defined $pid;
    File::Path::remove_tree( map { path($_) } qw( conf html cache ), @logs,
        map {"${_}_temp"} qw( client_body proxy fastcgi uwsgi scgi ) );
    File::Path::make_path( map { path($_) } qw( conf html logs ) );
    put( path('html/index.html'), 'It works!' );
    write_user_files($block);

    $config = $block->config if defined $block->config;
    Test::More::BAIL_OUT( $block->name . ' - no config' ) if !defined $config;
    put( path('conf/nginx.conf'), conf_text($block) );
    Test::Nginx::Socket::Log::rewind();
    return;
}

sub put {
    my ( $file, $text ) = @_;
    open my $out, '>', $file or die "$file: $!\n";
    binmode $out;
    print {$out} $text;
    close $out or die "$file: $!\n";
    return;
}

sub conf_text {
    my ($block) = @_;
    my %text;
    for my $section (qw( main_config http_config post_main_config )) {
        $text{$section} = expand( scalar $block->$section ) // '';
    }
    my $server  = expand($config) . ( $S{leak} ? "\n" . Test::Nginx::Socket::Leak::location() : '' );
    my $modules = join ' ', map {"load_module $_;"} split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
    my $master  = $S{hup} || $S{master} && !$S{valgrind} ? 'on' : 'off';
    my $env     = join "\n", map { 'env ' . ( /\s/ ? "'$_'" : $_ ) . ';' } @{ $S{env} };
    my $name    = $block->server_name // $S{server_name};
    $name =~ s/([\\'])/\\$1/g;
    my $temp = join ' ', map {
        my $directive = "${_}_temp_path";
        $text{http_config} =~ /\b$directive\b/ ? () : "$directive " . path("${_}_temp") . ';'
    } qw( client_body proxy fastcgi uwsgi scgi );
    my $root_location = $S{root_location}
        ? 'location / { root ' . path('html') . '; index index.html; }'
        : '';
    my $user = $> == 0 ? 'user root;' : '';    # workers have to reach the prefix directory
    my ( $pid_file, $error_log, $access_log )
        = map { path("logs/$_") } qw( nginx.pid error.log access.log );

    # The order leaves main_config right before http, as suites written for Test::Nginx expect.
    return <<"CONF";
worker_processes $S{workers};
daemon off;
master_process $master;
error_log $error_log $S{log_level};
pid $pid_file;
$user
$env
$modules
$text{main_config}

http {
    access_log $access_log;
    $temp
    default_type text/plain;
    keepalive_timeout 68s;

$text{http_config}
    server {
        listen $S{server_addr}:$S{server_port};
        server_name '$name';
        client_max_body_size 30M;

$S{preamble}
$server

        $root_location
    }
}

$text{post_main_config}

events {
    accept_mutex off;
    worker_connections $S{worker_connections};
}
CONF
}

# ">>> NAME [TIME]" begins a file; a relative name is one of html/.
sub write_user_files {
    my ($block) = @_;
    my $files = $block->user_files // return;
    if ( !ref $files ) {
        my @list;
        for my $line ( split /^/, $files ) {
            if ( $line =~ /^>>> (\S+)(?:\s+(\S+))?/ ) {
                push @list, [ $1, '', $2 ];
            }
            elsif (@list) {
                $list[-1][1] .= $line;
            }
        }
        $files = \@list;
    }
    for my $file (@$files) {
        my ( $name, $body, $date ) = @$file;
        my $path = $name =~ m{^/} ? $name : path("html/$name");
        File::Path::make_path( $path =~ m{^(.*)/} );
        put( $path, expand( $body // '' ) );
        if ($date) {
            local $ENV{TZ} = 'GMT';
            system 'touch', '-t', $date, $path;
        }
    }
    return;
}

sub command {
    my @valgrind;
    if ( $S{valgrind} ) {
        @valgrind
            = $S{valgrind} =~ /^\d+$/
            ? qw( valgrind -q --num-callers=100 --leak-check=full --show-possibly-lost=no )
            : ( qw( valgrind -q ), split ' ', $S{valgrind} );
        push @valgrind, '--suppressions=valgrind.suppress' if -e 'valgrind.suppress';
    }
    return [
        @valgrind, $S{binary},
        -e => path('logs/error.log'),
        -p => "$S{root}/",
        -c => path('conf/nginx.conf')
    ];
}

sub pid { return $pid }

# True once nginx listens with the block's configuration; else a test has failed.
sub start {
    my ($block) = @_;
    my $failure
        = defined $pid
        ? Test::Nginx::Socket::Reload::reload($pid)
        : start_new($block);
    return 1 if !defined $failure;
    stop();
    Test::More::fail( $block->name . ' - nginx starts' );
    Test::More::diag( $failure . error_log() );
    return;
}

# Ahead of a repetition; as start().
sub again {
    my ($block) = @_;
    if ( $S{hup} ) {
        prepare($block);
        return start($block);
    }
    write_user_files($block);
    return 1;
}

# Returns undef once nginx listens, else what went wrong.
sub start_new {
    my ($block) = @_;
    $pid = launch( defined $block->suppress_stderr );
    my $until = time + ( $S{valgrind} || $S{timeout} > 10 ? 120 : 20 );    # it may be slow
    while (1) {
        # nginx opens its sockets, then runs init_by_lua, then writes this file.
        return if -s path('logs/nginx.pid');
        if ( defined( my $status = TestEnv::Child::ended($pid) ) ) {
            undef $pid;
            return "nginx ended with status $status\n";
        }
        last if time > $until;
        sleep 0.002;
    }
    return "nginx does not come up\n";
}

sub launch {
    my ($quiet) = @_;
    return TestEnv::Child::spawn(
        command(),
        stdout => '/dev/null',
        $quiet ? ( stderr => '/dev/null' ) : (),
    );
}

# For a configuration that must be refused: the wait status, or undef if nginx went on to serve.
sub run_to_death {
    my ($block) = @_;
    $pid = launch(1);
    my $until = time + 20;
    my $status;
    while ( !defined( $status = TestEnv::Child::ended($pid) ) ) {
        if ( time > $until || -s path('logs/nginx.pid') ) {
            stop();
            return;
        }
        sleep 0.002;
    }
    undef $pid;
    return $status;
}

# After a block. Where the next one gets the same server, only what is to be seen at its end ends it.
sub done {
    my ($block) = @_;
    return stop()
        if !$S{hup} || defined $block->shutdown_error_log || defined $block->no_shutdown_error_log;
    return;
}

# Returns undef if nginx ended as it should, else what it did.
sub stop {
    return if !defined $pid || $$ != $OWNER;
    my $child = $pid;
    undef $pid;
    my $signal = $ENV{TEST_NGINX_FAST_SHUTDOWN} ? 'TERM' : 'QUIT';
    my $status = TestEnv::Child::stop( $child, $signal, $S{timeout} );
    if ( !defined $status ) {
        Test::More::diag("nginx did not stop within $S{timeout} s");
        return;
    }
    Test::Nginx::Socket::Reload::look_back();
    return if !$status;
    return $status & 127
        ? 'nginx was ended by signal ' . ( $status & 127 )
        : 'nginx ended with exit code ' . ( $status >> 8 );
}

sub error_log {
    open my $log, '<', path('logs/error.log') or return '';
    my @lines = grep { !/\[debug\]/ } <$log>;
    return join '', @lines > 30 ? @lines[ -30 .. -1 ] : @lines;
}

sub version { return $version //= `$S{binary} -v 2>&1` }

1;
__END__

=head1 NAME

Test::Nginx::Socket::Server - one nginx per block

=head1 DESCRIPTION

Writes configuration and files below the prefix directory, starts nginx as a child in the
foreground, so that its end and its exit status are seen at once, and stops it with QUIT.

=cut
