use strict;
use warnings;
use lib 't/lib';

use Test::More;

use LiveNginx;
use TestEnv;

# What an operator reads in error.log: which server a line is about, and a few lines instead of
# one for each request.

plan skip_all => 'the lines of this module' if $ENV{TEST_NGINX_REFERENCE_LIB};

my $unused = $ENV{TEST_NGINX_UNUSED_PORT};
my $http   = qq{
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}

        -- Connects and asks; closes what is left.
        function try(host, port, opts)
            local m = kit.new()
            m:set_timeouts(80, 80, 80)
            local ok, err = m:connect(host, port, opts)
            if ok then
                err = select(3, m:get("k"))
            end
            m:close()
            return tostring(err)
        end
    }
};
my $server = qq{
    location = /away { content_by_lua_block { ngx.print(try("127.0.0.1", $unused)) } }
    location = /other { content_by_lua_block { ngx.print(try("127.0.0.2", $unused)) } }
    location = /quiet {
        lua_socket_log_errors off;
        content_by_lua_block { ngx.print(try("127.0.0.1", $unused)) }
    }
    location = /path { content_by_lua_block { ngx.print(try("unix:/nonexistent/\\n[alert] memcached")) } }
    location = /silent {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:line() do end end)
            ngx.print(srv.port, " ", try("127.0.0.1", srv.port))
            srv:close()
        }
    }
    location = /reset {
        content_by_lua_block {
            local srv = kit.replies("RST")
            ngx.print(srv.port, " ", try("127.0.0.1", srv.port))
            srv:close()
        }
    }
    location = /full {
        content_by_lua_block {
            local full = kit.listen{ backlog = 0 }
            for _ = 1, 4 do full:knock() end
            ngx.print(full.port, " ", try("127.0.0.1", full.port))
            full:close()
        }
    }
    location = /queue {
        content_by_lua_block {
            local opts = { pool = "queue", pool_size = 1, backlog = 1 }
            local first = kit.connect(nil, opts, { multiplex = false })
            local m = require "resty.memcached":new{ multiplex = false }
            m:set_timeout(50)
            ngx.print(kit.port, " ", select(2, m:connect("127.0.0.1", kit.port, opts)))
            first:close()
        }
    }
    location = /closed {
        content_by_lua_block {
            local m = kit.connect()
            m:set_keepalive()
            ngx.print(select(3, m:get("k")))
        }
    }
    location = /handshake {
        content_by_lua_block {
            local srv = kit.fake(function(c) c:line() c:send("ERROR\\r\\n") c:drain(0.2) end)
            local m = kit.connect(srv.port)
            ngx.print(srv.port, " ", select(2, m:sslhandshake()))
            srv:close()
        }
    }
};

my $nginx = LiveNginx->start( http => $http, server => $server );

# The lines that a request writes, without nginx's beginning.
sub lines {
    my ($path) = @_;
    my $before = length $nginx->log;
    my $body   = $nginx->get($path);
    my @lines  = grep {/\[(?:warn|error|crit|alert)\]/} split /\n/, substr $nginx->log, $before;
    s{^.*?\*\d+ }{} for @lines;
    return ( $body, @lines );
}
my $client = qr/, client: 127\.0\.0\.1, server: , request: "GET \S+ HTTP\/1\.0", host: "localhost"/;

# An address is behind what nginx adds, whoever writes the line.
my ( $body, @lines ) = lines('/away');
is $body, 'connection refused', 'a closed port';
is @lines, 1, 'one line';
like $lines[0], qr/\Aconnect\(\) failed \(111: Connection refused\)$client, memcached: 127\.0\.0\.1:$unused\z/,
    'with the address at its end';

( $body, @lines ) = lines('/path');
like $lines[0], qr{\Aconnect\(\) to unix:/nonexistent/.* failed \(2: No .*, memcached: unix:/nonexistent/},
    'a unix socket';
is @lines, 1, 'in one line, whatever its name is';

for my $case (
    [ '/silent', 'timeout', qr/lua tcp socket read timed out/ ],
    [ '/reset', 'connection reset by peer', qr/recv\(\) failed \(104: Connection reset by peer\)/ ],
    [ '/full', 'timeout', qr/lua tcp socket connect timed out, when connecting to 127\.0\.0\.1:\d+/ ],
    [ '/queue', 'timeout', qr/lua tcp socket queued connect timed out, when trying to connect to 127\.0\.0\.1:\d+/ ],
    [ '/handshake', 'handshake failed', qr/SSL_do_handshake\(\) failed .*/ ],
) {
    my ( $path, $error, $words ) = @$case;
    ( $body, @lines ) = lines($path);
    my ( $port, $got ) = split / /, $body, 2;
    is $got, $error, "$path: the error";
    my @ours = grep {/$words/} @lines;
    # a shared connection is no request's, and its loss is met twice
    my $lost = $path eq '/reset' && $ENV{TEST_NGINX_MULTIPLEX};
    is @ours, $lost ? 2 : 1, "$path: one line" or diag explain \@lines;
    my $whose = $lost ? qr// : $client;
    like $ours[0], qr/$words$whose, memcached: 127\.0\.0\.1:$port\z/, "$path: with the address at its end";
}

( $body, @lines ) = lines('/closed');
like $lines[0],
    qr/\Aattempt to send data on a closed socket: u:0+, c:0+, ft:0 eof:0 \(not connected: .* has ended the connection\)/,
    'a closed socket: what may have happened';

# A server that is away: eight lines, however many requests there are.
$nginx->get('/away')  for 1 .. 60;
$nginx->get('/quiet') for 1 .. 20;
$nginx->get('/other') for 1 .. 3;
my $refused = sub { scalar grep {/connect\(\) failed \(111/ && /memcached: \Q$_[0]\E:/} split /\n/, $nginx->log };
is $refused->('127.0.0.1'), 8, 'eight lines';
is $refused->('127.0.0.2'), 3, 'another server has its own';
my $told = qr/\[error\] .*connect\(\) failed: (\d+) more lines like this suppressed, memcached: 127\.0\.0\.1:$unused$/m;
ok $nginx->wait_for( sub { $nginx->log =~ $told }, 20 ), 'then their number';
is( ( $nginx->log =~ $told )[0], 53, 'without those of a location that logs no errors' );

# It goes on: an example, and at the end of the worker what was not told.
$nginx->get('/away') for 1 .. 5;
is $refused->('127.0.0.1'), 9, 'an example in the next interval';
ok $nginx->quit, 'ends';
my @numbers = $nginx->log =~ /$told/g;
is_deeply \@numbers, [ 53, 4 ], 'every line is written or counted';

done_testing();
