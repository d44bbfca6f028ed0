use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use TestEnv memcached => 0;
use LiveNginx;

# Which server gets a key: the one that other implementations choose, and memcached_pass.

my $golden = TestEnv::root() . '/src/distribution/golden';
my @ports  = map { TestEnv::start_memcached() } 1 .. 5;

# What others chose by the place in the list alone: so the servers can be here.
my %BY_PLACE = (
    'nginx nginx-plain-five_equal'                  => 'hash $lua_memcached_key;',
    'libmemcached libmemcached-modula-default'      => 'lua_memcached_hash modula hash=one_at_a_time;',
    'libmemcached libmemcached-modula-md5'          => 'lua_memcached_hash modula hash=md5;',
    'libmemcached libmemcached-modula-fnv1a_64'     => 'lua_memcached_hash modula hash=fnv1a_64;',
    'twemproxy twemproxy-modula-crc32-five_equal'   => 'lua_memcached_hash modula hash=crc;',
);

# Which vectors servers of other addresses are in, to which nothing connects.
my %METHOD = (
    consistent => 'hash $lua_memcached_key consistent;',
    crc        => 'hash $lua_memcached_key;',
);
my ( $blocks, @by_name ) = ('');
for my $file (qw( nginx libmemcached php twemproxy )) {
    open my $in, '<', "$golden/$file.txt" or die "$file: $!";
    my ( $name, $method, @servers );
    while (<$in>) {
        if    (/^\[(.*)\]/)        { ( $name, $method, @servers ) = ($1) }
        elsif (/^method (.*)/)     { $method = $1 }
        elsif (/^server (\S+) (weight=\d+)(down)?( down)?$/) { push @servers, "server $1 $2" . ( $3 || $4 ? ' down' : '' ) . ';' }
        elsif (/^nick/)            { push @servers, 'nick' }
        elsif (/^chosen/ && $name) {
            # names that nobody resolves, and servers that are dead rather than marked
            my $of = $name;
            undef $name;
            next if "@servers" =~ /example|nick/ || $of =~ /dead/;
            ( my $quoted = $method ) =~ s/(hash_tag=\S+)/"$1"/;
            my $hash = $METHOD{$method} // "lua_memcached_hash $quoted;";
            $blocks .= "upstream $of { $hash @servers }\n";
            push @by_name, "$file $of";
        }
    }
    close $in or die "$file: $!";
}
for my $of ( sort keys %BY_PLACE ) {
    my ($name) = $of =~ /(\S+)$/;
    $blocks .= "upstream here-$name { $BY_PLACE{$of} " . join( ' ', map {"server 127.0.0.1:$_;"} @ports ) . " }\n";
}
my $list = join ' ', map {"server 127.0.0.1:$_ weight=" . ( 1 + $_ % 3 ) . ';'} @ports;

my $nginx = LiveNginx->start(
    http => qq{
        $blocks
        upstream by-pass { hash \$memcached_key consistent; $list keepalive 4; }
        upstream zoned { zone zoned 64k; lua_memcached_hash ketama; $list }
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            groupkit = require "groupkit"
            golden = "$golden"
            ports = { @{[ join ', ', @ports ]} }
        }
    },
    server => q{
        location /pass/ { set $memcached_key $uri; memcached_pass by-pass; }
        location = /by_name {
            content_by_lua_block {
                local file, name = ngx.var.arg_file, ngx.var.arg_name
                local vector = groupkit.vectors(golden, file)[name]
                local keys = #vector.keys > 0 and vector.keys or groupkit.keys(golden)
                local m = groupkit.object()
                assert(m:connect(name))
                local wrong, asked = 0, 0
                for i, key in ipairs(keys) do
                    if not key:find("[%s%c\127]") then
                        asked = asked + 1
                        local want = vector.servers[vector.chosen[i]]
                        if not want:find(":%d+$") or want:find("^%[[^%]]*%]$") then want = want .. ":80" end
                        if m:server_of(key) ~= want then wrong = wrong + 1 end
                    end
                end
                ngx.print(wrong, " of ", asked > 90 and "all" or asked, " ", (m:close()))
            }
        }
        location = /by_place {
            content_by_lua_block {
                local file, name = ngx.var.arg_file, ngx.var.arg_name
                local vector = groupkit.vectors(golden, file)[name]
                local keys = groupkit.keys(golden)
                local m = groupkit.object()
                assert(m:connect("here-" .. name))
                local servers, wrong, stored = {}, 0, 0
                for i, port in ipairs(ports) do
                    servers[i] = groupkit.object()
                    assert(servers[i]:connect("127.0.0.1", port))
                    assert(servers[i]:flush_all())
                end
                for i = 1, #keys, 2 do
                    local key = keys[i]
                    if not key:find("[%s%c\127]") then
                        assert(m:set(key, name .. i))
                        stored = stored + 1
                        for at, server in ipairs(servers) do
                            local there = server:get(key) == name .. i
                            if there ~= (at == vector.chosen[i]) then wrong = wrong + 1 end
                        end
                        if m:get(key) ~= name .. i then wrong = wrong + 1 end
                        if m:server_of(key) ~= "127.0.0.1:" .. ports[vector.chosen[i]] then wrong = wrong + 1 end
                    end
                end
                ngx.print(wrong, " of ", stored > 1000 and "all" or stored, " ", (m:set_keepalive()))
            }
        }
        location = /for_pass {
            content_by_lua_block {
                local m = groupkit.object()
                assert(m:connect("by-pass"))
                for i = 1, 200 do assert(m:set("/pass/key" .. i, "value" .. i)) end
                ngx.print(m:close())
            }
        }
        location = /all_commands {
            content_by_lua_block {
                local name = ngx.var.arg_name
                local m = require "resty.memcached":new()
                local wrong = {}
                assert(m:connect(name))
                for i = 1, 40 do
                    local key = "all commands " .. i
                    m:delete(key)
                    local ok = m:set(key, "a") == 1
                        and select(2, m:add(key, "b")) == "NOT_STORED"
                        and m:replace(key, "c", 0, 7) == 1
                        and m:append(key, "d") == 1
                        and m:prepend(key, "b") == 1
                    local value, flags = m:get(key)
                    ok = ok and value == "bcd" and flags == "7"
                    local again, _, unique = m:gets(key)
                    ok = ok and again == "bcd" and m:cas(key, "1", unique) == 1
                        and select(2, m:cas(key, "1", unique)) == "EXISTS"
                        and m:incr(key, 41) == "42" and m:decr(key, 2) == "40"
                        and m:touch(key, 100) == 1 and m:delete(key) == 1
                        and select(2, m:delete(key)) == "NOT_FOUND"
                    local none, no_flags, err = m:get(key)
                    ok = ok and none == nil and no_flags == nil and err == nil
                    if not ok then wrong[#wrong + 1] = i end
                end
                ngx.print("wrong: ", table.concat(wrong, " "), "; ", (m:set_keepalive()), " ", (select(2, m:set("x", 1))))
            }
        }
    },
);

sub by { my ( $path, $of ) = @_; my ( $file, $name ) = split / /, $of; return $nginx->get("/$path?file=$file&name=$name") }

cmp_ok( scalar @by_name, '>=', 35, 'enough vectors' );
like( by( by_name => $_ ), qr/\A0 of \w+ 1\z/, "server_of: $_" ) for @by_name;
is( by( by_place => $_ ), '0 of all 1', "keys lie where $_ says" ) for sort keys %BY_PLACE;

is( $nginx->get('/for_pass'), 1, 'Lua stores' );
my @differ = grep { ( $nginx->get("/pass/key$_") // 'none' ) ne "value$_" } 1 .. 200;
is( "@differ", '', 'memcached_pass finds what Lua has stored' );

for my $name (qw( by-pass zoned )) {
    is( $nginx->get("/all_commands?name=$name"), 'wrong: ; 1 closed', "all commands with one key: $name" );
}
is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' )
    or diag( $nginx->log );
undef $nginx;
done_testing();
