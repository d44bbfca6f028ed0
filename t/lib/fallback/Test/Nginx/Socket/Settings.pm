package Test::Nginx::Socket::Settings;

use strict;
use warnings;

use Exporter 'import';
use File::Spec ();

our @EXPORT_OK = qw( %S expand seconds env_name path );

# What a suite's calls change. Times are in seconds.
our %S = (
    repeat_each        => 1,
    workers            => 1,
    worker_connections => 64,
    log_level          => $ENV{TEST_NGINX_LOG_LEVEL} || 'debug',
    master             => ( $ENV{TEST_NGINX_MASTER_PROCESS} || 'off' ) eq 'on',
    timeout            => $ENV{TEST_NGINX_TIMEOUT} || 3,
    shuffle            => !$ENV{TEST_NGINX_NO_SHUFFLE},
    root_location      => 1,
    accum_error_log    => $ENV{TEST_NGINX_CHECK_ACCUM_ERR_LOG},
    preamble           => '',
    env                => [],
    binary             => $ENV{TEST_NGINX_BINARY} || 'nginx',
    valgrind           => $ENV{TEST_NGINX_USE_VALGRIND},
    hup                => $ENV{TEST_NGINX_USE_HUP},
    leak               => $ENV{TEST_NGINX_CHECK_LEAK},
    server_port        => $ENV{TEST_NGINX_SERVER_PORT} || $ENV{TEST_NGINX_PORT} || 1984,
    server_addr        => '127.0.0.1',
    server_name        => 'localhost',
    root => $ENV{TEST_NGINX_SERVROOT} || File::Spec->rel2abs('t/servroot'),
);
$ENV{TEST_NGINX_SERVER_ROOT} = $S{root};
$S{timeout} *= 10 if $S{valgrind};

my %rand_port;    # by variable name, per block

# A file of the server, e.g. path('logs/error.log').
sub path { return "$S{root}/$_[0]" }

sub forget_rand_ports { %rand_port = (); return }

# Replaces $TEST_NGINX_* by the environment's values. An unset one is an error of the suite.
sub expand {
    my ($text) = @_;
    return $text if !defined $text || ref $text;
    $text =~ s/\$(TEST_NGINX_[_A-Z0-9]+)/value_of($1)/ge;
    return $text;
}

sub value_of {
    my ($name) = @_;
    if ( $name =~ /^TEST_NGINX_RAND_PORT_\d+$/ ) {
        return $rand_port{$name} //= do { require TestEnv; TestEnv::free_port() };
    }
    return $ENV{$name} // Test::More::BAIL_OUT("environment variable $name is not set");
}

# "100ms", "1s", "0.1" or undef.
sub seconds {
    my ($time) = @_;
    return if !defined $time;
    return $1 / 1000 if $time =~ /^\s*([\d.]+)\s*ms\s*$/;
    return $1        if $time =~ /^\s*([\d.]+)\s*s?\s*$/;
    Test::More::BAIL_OUT("bad time '$time'");
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::Settings - settings of a suite, times and variables in its text

=cut
