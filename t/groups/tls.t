use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;
use TestCerts;

# Groups over TLS: the handshake that was asked for is done on each connection that is opened.

my @ports = map { TestEnv::start_memcached( args => TestCerts::memcached_args('good') ) } 1 .. 3;
my $plain = TestEnv::start_memcached();
my $certs = TestCerts::dir();

# Accepts, and says nothing.
sub mute { return IO::Socket::INET->new( Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0 ) // die "listen: $!" }
my $mute  = mute();
my @mutes = map { mute() } 1 .. 4;

sub servers { my ( $rest, @list ) = @_; return join ' ', map {"server 127.0.0.1:$_ $rest;"} @list }

my $nginx = LiveNginx->start(
    http => qq{
        upstream three { lua_memcached_hash ketama; @{[ servers( '', @ports ) ]} }
        upstream mixed { lua_memcached_hash ketama; @{[ servers( 'max_fails=1 fail_timeout=60s', @ports, $plain ) ]} }
        upstream off   { lua_memcached_hash ketama; lua_memcached_failover off; @{[ servers( 'max_fails=0', @ports, $mute->sockport ) ]} }
        upstream mutes { lua_memcached_hash modula; lua_memcached_failover off; @{[ servers( 'max_fails=0', map { $_->sockport } @mutes ) ]} }
        lua_socket_log_errors off;
        lua_ssl_protocols TLSv1.2 TLSv1.3;
        lua_ssl_trusted_certificate $certs/ca.pem;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            mute = "127.0.0.1:@{[ $mute->sockport ]}"
            keys = {}
            for i = 1, 60 do keys[i] = "key" .. i end
            function object(name, timeout)
                local m = require "resty.memcached":new()
                m:set_timeouts(1000, 1000, timeout or 1000)
                assert(m:connect(name))
                assert(m:sslhandshake(false, "memcached.test", true) == true)
                return m
            end
            -- How many commands of a pipeline are right, how many keys of a list, and errors.
            function used(m)
                m:init_pipeline()
                for i, key in ipairs(keys) do m:set(key, i) m:get(key) end
                local results, err = m:commit_pipeline()
                local right, found, errors = 0, 0, {}
                for i = 1, 2 * #keys do
                    local result = results and results[i] or { nil, err }
                    if result[1] == 1 or result[1] == tostring(i / 2) then right = right + 1
                    else errors[tostring(result[2] or result[3])] = true end
                end
                local all, why = m:get(keys)
                for i, key in ipairs(keys) do
                    if all and all[key] and all[key][1] == tostring(i) then found = found + 1 end
                end
                errors[why or "none"] = true
                local list = {}
                for text in pairs(errors) do list[#list + 1] = text end
                table.sort(list)
                return right .. " " .. found .. " " .. table.concat(list, ", ")
            end
        }
    },
    server => GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

is( lua(q{ local m = object("three") ngx.print(used(m), " ", m:get_reused_times(), " ", m:set_keepalive()) }), '120 60 none 0 1', 'a pipeline and a list' );
is( lua(q{ local m = object("three") ngx.print(used(m), " ", m:get_reused_times() > 0, " ", m:set_keepalive()) }) =~ s/true/1/r, '120 60 none 1 1', 'over connections that were kept' );
is( lua(q{ local m = object("mixed") ngx.print(used(m), " ", m:close()) }), '120 60 none 1', 'the keys of one without TLS go to the next' );
is( lua(q{ local m = require "resty.memcached":new() m:connect("three") m:set_timeouts(1000, 1000, 1000) m:sslhandshake(false, "wrong.test", true)
    ngx.print(used(m)) }), '0 0 certificate host mismatch, no live upstreams', 'the wrong name' );
my $said = lua(q{ local m, theirs = object("off", 300), 0 for _, key in ipairs(keys) do if m:server_of(key) == mute then theirs = theirs + 1 end end
    ngx.print(used(m), " ", theirs) });
my ( $right, $found, $theirs ) = $said =~ /\A(\d+) (\d+) timeout (\d+)\z/ or diag $said;
is( ( $right // 0 ) + 2 * ( $theirs // 0 ), 120, 'one that does not do a handshake: the errors of its keys in a pipeline' );
is( ( $found // 0 ) + ( $theirs // 0 ), 60, '... and in a list' );

is( lua(q{ local m = object("mutes", 700) m:set_timeouts(700, 700, 700) ngx.update_time() local from = ngx.now() local found, err = m:get(keys) ngx.update_time()
    local took = ngx.now() - from ngx.print(tostring(found), " ", err, " ", took > 0.6 and took < 2.2 and "at once" or took) }),
    'nil timeout at once', 'handshakes are done at the same time' );
is( lua(q{ local m = object("mutes", 2000) m:set_timeouts(2000, 2000, 2000) local t = ngx.thread.spawn(m.get, m, keys) ngx.sleep(0.1)
    local _, busy = m:get(keys) ngx.thread.kill(t) m:set_timeouts(300, 300, 300) local _, err = m:get(keys) ngx.print(busy, " ", err, " ", m:close()) }),
    'socket busy connecting timeout 1', '... by a thread that is killed' );
like( lua(q{ local m = require "resty.memcached":new() m:connect("three") ngx.print(pcall(m.sslhandshake, m, nil, {})) }),
    qr/\Afalse.*bad server name argument \(string expected, got table\)\z/, 'a bad argument' );

is_deeply( [ grep { !/SSL_do_handshake|wrong version|certificate/ } $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
undef $nginx;
done_testing();
