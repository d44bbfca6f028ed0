# The harness of t/lib fails when it should and passes when it should. The blocks below __DATA__ run
# in a child with the fallback of t/lib, even where Test::Nginx is installed; each block says after
# its name what the tests in it have to give: "+" for ok, "-" for not ok, "s" for skipped.

use strict;
use warnings;

use Cwd ();
use File::Basename ();
use File::Spec ();
use File::Temp ();
use Test::More;

my $root = Cwd::abs_path(
    File::Spec->catdir( File::Basename::dirname( File::Spec->rel2abs(__FILE__) ), '..' ) );
my @include = map {"-I$root/t/lib$_"} '', '/fallback';
my $tmp     = File::Temp->newdir;

# Starts a suite with these blocks; returns what finish() needs.
sub start {
    my ( $plan, $blocks, $extra ) = @_;
    my $file = File::Temp->new( DIR => "$tmp", SUFFIX => '.t', UNLINK => 0 )->filename;
    open my $out, '>', $file or die "$file: $!";
    print {$out} "use TestEnv memcached => 0, module => 0;\nuse Test::Nginx::Socket::Lua;\n",
        "no_shuffle();\n", $extra // '', "plan $plan;\nrun_tests();\n__DATA__\n", $blocks;
    close $out or die "$file: $!";
    my $pid = open( my $tap, '-|' ) // die "fork: $!";
    if ( !$pid ) {
        delete @ENV{ grep { /^TEST_NGINX_/ && $_ ne 'TEST_NGINX_BINARY' } keys %ENV };
        open STDERR, '>&', \*STDOUT;
        chdir $root;
        exec $^X, @include, $file or die "exec: $!";
    }
    return { pid => $pid, tap => $tap };
}

# (exit status, all output, { name => "+-s" })
sub finish {
    my ($run) = @_;
    my ( $text, %got ) = '';
    while ( my $line = readline $run->{tap} ) {
        $text .= $line;
        next if $line !~ /^(not )?ok \d+ (?:- \S+ (\w[^-]*\w) - |# skip \S+ (\w[^-]*\w) - )/;
        $got{ $2 // $3 } .= defined $3 ? 's' : $1 ? '-' : '+';
    }
    close $run->{tap};
    return ( $?, $text, \%got );
}

my $blocks = do { local $/; <DATA> };
my %want;
$blocks =~ s{^=== (.*?) *\[([-+s]+)\]$}{ $want{$1} = $2; "=== $1" }gme;

# Two at once: neither may notice the other.
my @runs = map { start( q('no_plan'), $blocks ) } 1 .. 2;
for my $run (@runs) {
    my ( $status, $text, $got ) = finish($run);
    isnt( $status, 0, 'a suite with failures fails' );
    my $bad = 0;
    for my $name ( sort keys %want ) {
        is( $got->{$name} // '', $want{$name}, $name ) or $bad++;
    }
    is( join( '|', grep { !$want{$_} } sort keys %$got ), '', 'no other tests' );
    diag($text) if $bad;
    ok( !-e "$root/t/servroot_$run->{pid}", 'prefix directory is gone' );
}

my $good = <<'BLOCKS';
=== first
--- config
    location = /t { content_by_lua_block { ngx.say("hello") } }
--- request
GET /t
--- response_body
hello
--- no_error_log
[error]
BLOCKS

{
    my ( $status, undef, $got ) = finish( start( 'tests => repeat_each() * 3 * blocks()', $good ) );
    is( $status, 0, 'a good suite passes' );
    is( $got->{first}, '+++', 'status, body and log are a test each' );
}
{
    my ( $status, undef, $got )
        = finish( start( 'tests => repeat_each() * 3 * blocks()', $good, "repeat_each(3);\n" ) );
    is( $status, 0, 'a repeated suite passes' );
    is( $got->{first}, '+++' x 3, 'every repetition is tested' );
}
{
    my ($status) = finish( start( 'tests => 4', $good ) );
    isnt( $status, 0, 'a wrong plan fails' );
}
for my $case (
    [ "--- udp_listen: 1\n",                         'a section that is not supported' ],
    [ "--- more_headers\nX: 1\n--- tcp_listen: 1\n", 'a fake server without a reply' ],
    )
{
    my ( $status, $text ) = finish( start( 'tests => 3', $good . $case->[0] ) );
    isnt( $status, 0, "$case->[1] fails" );
    like( $text, qr/^Bail out!/m, "$case->[1] ends the run" );
}
{
    ( my $unset = $good ) =~ s/hello/\$TEST_NGINX_NEVER_SET/;
    my ( $status, $text ) = finish( start( 'tests => 3', $unset ) );
    like( $text, qr/^Bail out!.*TEST_NGINX_NEVER_SET/m, 'an unset variable ends the run' );
}

done_testing();

__DATA__
=== wrong body [+-]
--- config
    location = /t { content_by_lua_block { ngx.say("hello") } }
--- request
GET /t
--- response_body
hallo

=== right patterns [+++]
--- config
    location = /t { content_by_lua_block { ngx.say("hello") } }
--- request
GET /t
--- response_body_like: ^h.llo$
--- raw_response_headers_like: \r\nConnection: close

=== wrong pattern [+-]
--- config
    location = /t { content_by_lua_block { ngx.say("hello") } }
--- request
GET /t
--- response_body_like: ^h.lo$

=== unwanted pattern [+-]
--- config
    location = /t { content_by_lua_block { ngx.say("hello") } }
--- request
GET /t
--- response_body_unlike: ell

=== status is checked unasked [-]
--- config
    location = /t { return 503; }
--- request
GET /t

=== status wanted [+]
--- config
    location = /t { return 503; }
--- request
GET /t
--- error_code: 503

=== headers right [++++]
--- config
    location = /t { add_header X-A 1; add_header X-A 2; return 200; }
--- request
GET /t
--- response_headers
x-a: 1, 2
Content-Length: 0
! X-B

=== headers wrong [+--]
--- config
    location = /t { add_header X-A 1; add_header X-B 1; return 200; }
--- request
GET /t
--- response_headers
X-A: 2
! X-B

=== log right [+++++]
--- config
    location = /t { content_by_lua_block { ngx.log(ngx.WARN, "some words") ngx.say(1) } }
--- request
GET /t
--- error_log
some words
[warn]
--- no_error_log
[error]
other words

=== log patterns [++++]
--- config
    location = /t { content_by_lua_block { ngx.log(ngx.WARN, "some words") ngx.say(1) } }
--- request
GET /t
--- error_log eval
[qr/so.e words/, "some"]
--- no_error_log eval
qr/so..e words/

=== log line missing [+-]
--- config
    location = /t { content_by_lua_block { ngx.say(1) } }
--- request
GET /t
--- error_log
no such words

=== log line unwanted [+-+]
--- config
    location = /t { content_by_lua_block { ngx.log(ngx.ERR, "some words") ngx.say(1) } }
--- request
GET /t
--- no_error_log
[error]
[crit]

=== log after the response [++]
--- config
    location = /t { content_by_lua_block {
        ngx.timer.at(0.05, function() ngx.log(ngx.WARN, "late words") end) } }
--- request
GET /t
--- wait: 0.1
--- error_log
late words

=== grep right [++]
--- config
    location = /t { content_by_lua_block { ngx.log(ngx.WARN, "n=1 ") ngx.log(ngx.WARN, "n=2 ") } }
--- request
GET /t
--- grep_error_log eval
qr/n=\d /
--- grep_error_log_out eval
"n=1 \nn=2 \n"

=== grep wrong [-+]
--- config
    location = /t { content_by_lua_block { ngx.log(ngx.WARN, "n=1 ") } }
--- request
GET /t
--- error_code: 404
--- grep_error_log: n=1
--- grep_error_log_out
n=1

=== shutdown log right [+++]
--- http_config
    exit_worker_by_lua_block { ngx.log(ngx.WARN, "last words") }
--- config
--- request
GET /
--- shutdown_error_log
last words
--- no_shutdown_error_log
[alert]

=== shutdown log wrong [+--]
--- http_config
    exit_worker_by_lua_block { ngx.log(ngx.WARN, "last words") }
--- config
--- request
GET /
--- shutdown_error_log
other words
--- no_shutdown_error_log
last words

=== client times out [-]
--- config
    location = /t { content_by_lua_block { ngx.sleep(0.5) } }
--- request
GET /t
--- timeout: 50ms
--- ignore_response

=== client gives up [+]
--- config
    location = /t { lua_check_client_abort on; content_by_lua_block {
        ngx.on_abort(function() ngx.log(ngx.WARN, "client left") ngx.exit(499) end)
        ngx.sleep(5) } }
--- request
GET /t
--- timeout: 50ms
--- abort
--- ignore_response
--- error_log
client left

=== nginx refuses as it should [++]
--- config
    no_such_directive on;
--- request
GET /t
--- must_die
--- error_log
no_such_directive

=== nginx accepts and should not [-]
--- config
--- request
GET /t
--- must_die

=== nginx does not start [-]
--- config
    no_such_directive on;
--- suppress_stderr
--- request
GET /t

=== nginx crashes [-]
--- config
    location = /t { content_by_lua_block { os.execute("kill -KILL " .. ngx.worker.pid()) } }
--- request
GET /t
--- ignore_response

=== fake server right [++++]
--- config
    location = /t { content_by_lua_block {
        local s = ngx.socket.tcp()
        assert(s:connect("127.0.0.1", $TEST_NGINX_FAKE_PORT))
        assert(s:send("ab\r\n"))
        ngx.say(s:receive("*a")) } }
--- request
GET /t
--- tcp_listen: $TEST_NGINX_FAKE_PORT
--- tcp_query eval
"ab\r\n"
--- tcp_query_len: 4
--- tcp_reply eval
sub { [ "<", $_[0] =~ /(\w+)/, ">" ] }
--- response_body
<ab>

=== fake server wrong [++--]
--- config
    location = /t { content_by_lua_block {
        local s = ngx.socket.tcp()
        assert(s:connect("127.0.0.1", $TEST_NGINX_FAKE_PORT))
        assert(s:send("ab\r\n"))
        s:close()
        ngx.say("x") } }
--- request
GET /t
--- tcp_listen: $TEST_NGINX_FAKE_PORT
--- tcp_query eval
"abc\r\n"
--- tcp_query_len: 5
--- tcp_reply: x
--- response_body
x

=== pipelined, second wrong [+++-]
--- config
    location = /t { content_by_lua_block {
        ngx.req.read_body() ngx.say(ngx.var.request_body, ngx.var.http_x) } }
--- pipelined_requests eval
["POST /t\nabc", "GET /t"]
--- more_headers
X: 1
--- response_body eval
["abc1\n", "nil2\n"]

=== several requests, second wrong [+++-]
--- config
    location = /t { return 200 $args; }
--- request eval
["GET /t?a", "GET /t?b"]
--- response_body eval
["a", "c"]

=== files and variables [++]
--- config
--- user_files
>>> a.txt
$TEST_NGINX_SERVER_PORT
--- request
GET /a.txt
--- response_body
$TEST_NGINX_SERVER_PORT

=== not for this nginx [ss]
--- skip_nginx: 2: > 0.1.0
--- config
    no_such_directive on;
--- request
GET /t
