package Test::Nginx::Socket;

use strict;
use warnings;

use Test::Base -base;
use List::Util ();
use Time::HiRes ();

use Test::Nginx::Socket::Check ();
use Test::Nginx::Socket::Client ();
use Test::Nginx::Socket::Leak ();
use Test::Nginx::Socket::Log ();
use Test::Nginx::Socket::Request ();
use Test::Nginx::Socket::Server ();
use Test::Nginx::Socket::Settings qw( %S expand seconds path );
use Test::Nginx::Socket::TcpFake ();

our @EXPORT = qw(
    plan repeat_each run_tests timeout
    no_long_string no_shuffle no_root_location
    log_level workers worker_connections master_on master_off master_process_enabled
    env_to_nginx check_accum_error_log config_preamble
    add_block_preprocessor add_cleanup_handler add_test_cleanup_handler
    server_name server_addr server_port server_port_for_client server_root html_dir
    bail_out
);

# Sections of the format that would be ignored silently, and so make a suite mean less than it says.
my @UNSUPPORTED = qw(
    charset curl curl_options error_log_file http09 http2 http3 post_setup_server_root
    reload_fails request_eval response_body_eval response_body_filters response_body_json_sort
    skip_nginx2 skip_openssl skip_slave stap stap_out tcp_query_auto_timeout todo todo_nginx
    udp_listen udp_query udp_reply write_resp_body_file
);

my ( @preprocessors, @cleanups, @block_cleanups );

sub setting {
    my ( $name, @value ) = @_;
    $S{$name} = $value[0] if @value;
    return $S{$name};
}

sub repeat_each            { return setting( repeat_each            => @_ ) }
sub timeout                { return setting( timeout                => @_ ) }
sub log_level              { return setting( log_level              => @_ ) }
sub workers                { return setting( workers                => @_ ) }
sub worker_connections     { return setting( worker_connections     => @_ ) }
sub server_name            { return setting( server_name            => @_ ) }
sub server_addr            { return setting( server_addr            => @_ ) }
sub server_port            { return setting( server_port            => @_ ) }
sub server_port_for_client { return setting( server_port            => @_ ) }
sub config_preamble        { return setting( preamble               => @_ ) }
sub master_on              { return setting( master                 => 1 ) }
sub master_off             { return setting( master                 => 0 ) }
sub no_shuffle             { return setting( shuffle                => 0 ) }
sub no_root_location       { return setting( root_location          => 0 ) }
sub check_accum_error_log  { return setting( accum_error_log        => 1 ) }
sub no_long_string         { return }                                 # diffs are never shortened
sub env_to_nginx           { push @{ $S{env} }, @_; return }
sub server_root            { return $S{root} }
sub html_dir               { return path('html') }

sub master_process_enabled {
    return setting( master => @_ ? ( $_[0] ? 1 : 0 ) : () ) ? 'on' : 'off';
}

sub add_block_preprocessor(&) { unshift @preprocessors,  @_; return }
sub add_cleanup_handler       { unshift @cleanups,       @_; return }
sub add_test_cleanup_handler  { unshift @block_cleanups, @_; return }

# A plan is of the tests that a block says, not of the one that a leak check is.
{
    no warnings 'redefine';

    sub plan {
        return Test::More::plan( $S{leak} && $_[0] ne 'skip_all' ? 'no_plan' : @_ );
    }
}

sub bail_out {
    Test::Nginx::Socket::Server::stop();
    Test::More::BAIL_OUT("@_");
}

sub run_tests() {
    my @blocks = Test::Base::blocks();
    @blocks = List::Util::shuffle(@blocks) if $S{shuffle};
    for my $block (@blocks) {
        $_->($block) for @preprocessors;
        $block->set_value( name => "$0 " . $block->name );
        run_block($block);
        $_->($block) for @block_cleanups;
    }
    if ( my $crash = Test::Nginx::Socket::Server::stop() ) { Test::More::fail("$0 - $crash") }
    $_->() for @cleanups;
    return;
}

sub run_block {
    my ($block) = @_;
    my $name = $block->name;
    for my $section (@UNSUPPORTED) {
        bail_out("$name - section '$section' needs the full Test::Nginx")
            if exists $block->{$section};
    }
    my ( $skip, $why ) = skipped($block);
    if ($skip) {
        for ( 1 .. $S{repeat_each} ) {
        SKIP: { Test::More::skip( "$name - $why", $skip ) }
        }
        return;
    }

    if ( $S{leak} && ( my $unfit = Test::Nginx::Socket::Leak::unfit($block) ) ) {
        Test::More::note("$name - not measured: $unfit");
        return;
    }

    Test::Nginx::Socket::Settings::forget_rand_ports();
    local $S{log_level} = $block->log_level || $S{log_level};
    Test::Nginx::Socket::Server::stop() if defined $block->must_die;
    Test::Nginx::Socket::Server::prepare($block);
    return must_die($block) if defined $block->must_die;

    return if !Test::Nginx::Socket::Server::start($block);
    if ( defined $block->init ) {
        eval 'package main; ' . $block->init . '; 1' or bail_out("$name - init: $@");
    }
    if ( $S{leak} ) {
        Test::Nginx::Socket::Leak::check( $block, Test::Nginx::Socket::Server::pid() );
        Test::Nginx::Socket::Server::stop();
        return;
    }
    for my $i ( 0 .. $S{repeat_each} - 1 ) {
        return if $i && !Test::Nginx::Socket::Server::again($block);
        my $fake = Test::Nginx::Socket::TcpFake->start($block);
        run_requests( $block, $i );
        $fake->check if $fake;
    }
    my $crash = Test::Nginx::Socket::Server::done($block);
    Test::Nginx::Socket::Log::check_shutdown($block);
    Test::More::fail("$name - $crash") if $crash;
    return;
}

# nginx has to refuse the configuration: once per repetition.
sub must_die {
    my ($block) = @_;
    for my $i ( 0 .. $S{repeat_each} - 1 ) {
        my $status = Test::Nginx::Socket::Server::run_to_death($block);
        my $name   = $block->name;
        my $code   = $block->must_die;
        if ( !defined $status || $status & 127 ) {
            Test::More::fail( "$name - dies by itself"
                    . ( defined $status ? ', not of a signal' : ', but it runs' ) );
        }
        elsif ( $code =~ /^\d+$/ ) {
            Test::More::is( $status >> 8, $code, "$name - die with the expected exit code" );
        }
        else {
            Test::More::isnt( $status, 0, "$name - die as expected" );
        }
        Test::Nginx::Socket::Log::check( $block, $i );
    }
    return;
}

# One repetition: all requests of the block, each with its checks.
sub run_requests {
    my ( $block, $repetition ) = @_;
    my @requests  = Test::Nginx::Socket::Request::from_block($block);
    my $pipelined = $block->pipelined_requests;
    my $expected  = $pipelined ? @$pipelined : @requests;
    my $timeout   = seconds( $block->timeout ) // $S{timeout};
    my $index     = 0;
    for my $request (@requests) {
        my $raw = Test::Nginx::Socket::Client::talk( $block, $request, $timeout );
        for ( 1 .. ( $pipelined ? $expected : 1 ) ) {
            if ( !defined $block->ignore_response ) {
                my $response
                    = Test::Nginx::Socket::Client::parse( $block->name, $raw, $request );
                $raw = $response->{rest};
                Test::Nginx::Socket::Check::response(
                    $block, $response,
                    index => $index,
                    many  => $expected > 1,
                );
            }
            Time::HiRes::sleep( seconds( $block->wait ) ) if $block->wait;
            Test::Nginx::Socket::Log::check( $block, $repetition );
            $index++;
        }
        if ( !$pipelined && defined $raw && $raw ne '' && !defined $block->ignore_response ) {
            Test::More::diag( $block->name . ' - bytes after the response: ' . length $raw );
        }
    }
    return;
}

# (number of tests, reason) if the block is not for this nginx or machine.
sub skipped {
    my ($block) = @_;
    my $name = $block->name;
    if ( defined( my $rule = $block->skip_eval ) ) {
        my ( $count, $code ) = $rule =~ /^\s*(\d+)\s*:\s*(.*)/s
            or bail_out("$name - bad skip_eval");
        my $skip = eval "package main; $code";
        bail_out("$name - skip_eval: $@") if $@;
        return ( $count, 'skip_eval' ) if $skip;
    }
    if ( defined( my $rule = $block->skip_nginx ) ) {
        my ( $count, $op, $version, $why )
            = $rule =~ /^\s*(\d+)\s*:\s*([<>]=?)\s*(\d+\.\d+\.\d+)(?:\s*:\s*(.*?))?\s*$/
            or bail_out("$name - bad skip_nginx");
        my ($have) = Test::Nginx::Socket::Server::version() =~ /(\d+\.\d+\.\d+)/;
        my $order = version->parse("v$have") <=> version->parse("v$version");
        my $skip
            = $op eq '<'  ? $order < 0
            : $op eq '<=' ? $order <= 0
            : $op eq '>'  ? $order > 0
            :               $order >= 0;
        return ( $count, $why || "nginx $op $version" ) if $skip;
    }
    return;
}

END { Test::Nginx::Socket::Server::stop() }

1;
__END__

=head1 NAME

Test::Nginx::Socket - the part of Test::Nginx that this project's suites use

=head1 DESCRIPTION

Runs suites in Test::Nginx format where Test::Nginx itself is not installed: for each block a
configuration is written, nginx started, requests sent, answers and F<error.log> compared, nginx
stopped. The number of tests per section is that of Test::Nginx, so that one plan fits both.

Tests beyond the plan appear only when something is wrong: the client timed out, nginx did not
start, did not stop, crashed or ended with an exit code.

=head2 Functions

C<repeat_each>, C<run_tests>, C<plan>, C<blocks>, C<no_shuffle>, C<no_long_string>, C<no_diff>,
C<no_root_location>, C<log_level>, C<workers>, C<worker_connections>, C<master_on>, C<master_off>,
C<master_process_enabled>, C<timeout>, C<env_to_nginx>, C<check_accum_error_log>, C<config_preamble>,
C<add_block_preprocessor>, C<add_cleanup_handler>, C<add_test_cleanup_handler>, C<server_name>,
C<server_addr>, C<server_port>, C<server_port_for_client>, C<server_root>, C<html_dir>, C<bail_out>,
and everything of L<Test::Base>.

=head2 Sections

Server: C<main_config>, C<http_config>, C<config>, C<post_main_config>, C<server_name>, C<log_level>,
C<user_files>, C<must_die>, C<suppress_stderr>, C<init>.

Request: C<request>, C<pipelined_requests>, C<raw_request>, C<raw_request_middle_delay>,
C<more_headers>, C<timeout>, C<abort>, C<shutdown>, C<wait>.

Answer, one test each and request: C<error_code> (200 unless given), C<error_code_like>,
C<response_body>, C<response_body_like>, C<response_body_unlike>, C<raw_response_headers_like>,
C<raw_response_headers_unlike>; one test per header: C<response_headers>, C<response_headers_like>;
none: C<ignore_response>.

Log, one test per line or pattern: C<error_log>, C<no_error_log>, C<access_log>, C<no_access_log>,
C<shutdown_error_log>, C<no_shutdown_error_log> (once per block, not per repetition); one test:
C<grep_error_log> with C<grep_error_log_out>.

A scripted server for one connection: C<tcp_listen>, C<tcp_query>, C<tcp_query_len>, C<tcp_reply>,
C<tcp_reply_delay>, C<tcp_no_close>, C<tcp_shutdown>, C<tcp_shutdown_delay>.

Selection: C<ONLY>, C<SKIP>, C<LAST>, C<skip_nginx>, C<skip_eval>.

Other sections of the format end the run with a message.

=head2 Environment

C<TEST_NGINX_BINARY>, C<TEST_NGINX_LOAD_MODULES>, C<TEST_NGINX_SERVER_PORT>, C<TEST_NGINX_SERVROOT>,
C<TEST_NGINX_NO_SHUFFLE>, C<TEST_NGINX_LOG_LEVEL>, C<TEST_NGINX_MASTER_PROCESS>, C<TEST_NGINX_TIMEOUT>,
C<TEST_NGINX_CHECK_ACCUM_ERR_LOG>, C<TEST_NGINX_USE_VALGRIND> (1, or valgrind's options),
C<TEST_NGINX_USE_HUP> (one nginx for all blocks of a suite, reloaded before each and before each
repetition; an alert of an old worker is a failure), C<TEST_NGINX_CHECK_LEAK> (one test a block, of
memory and descriptors while its requests are repeated, except with C<--- no_check_leak>).

=cut
