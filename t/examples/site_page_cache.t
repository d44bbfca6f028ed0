use strict;
use warnings;
use lib 't/lib';

use Test::More;

use ExampleConf;
use TestEnv;

my $app = q{
    server {
        listen @APP@;
        default_type text/html;
        location / {
            content_by_lua_block {
                local loaded = package.loaded
                local made = (loaded.made or 0) + 1
                loaded.made = made
                local kind = ngx.var.arg_kind
                if kind then ngx.header["Content-Type"] = kind end
                if ngx.var.arg_cookie then ngx.header["Set-Cookie"] = "a=b" end
                if ngx.var.arg_control then ngx.header["Cache-Control"] = ngx.unescape_uri(ngx.var.arg_control) end
                if ngx.var.arg_vary then ngx.header["Vary"] = "Cookie" end
                if ngx.var.arg_status then ngx.status = tonumber(ngx.var.arg_status) end
                ngx.req.read_body()
                ngx.print(ngx.req.get_method(), " ", ngx.var.request_uri, " ", ngx.var.host, " ",
                    ngx.req.get_body_data() or "-", " ", made, "\n\r\n")
            }
        }
    }
};
my $site = ExampleConf->start( 'page-cache.conf', http => $app );

# What came of a request: the cache's word for it, and the body.
my $page = sub {
    my ( $path, %opt ) = @_;
    my ( $status, $body, $headers ) = $site->ask( $path, %opt );
    return join ' ', $headers->{'x-cache'} // 'none', $status, $body;
};

is $page->('/a?b=%20c'), "MISS 200 GET /a?b=%20c site.test - 1\n\r\n", 'the application answers, with its own address';
is $page->('/a?b=%20c'), "HIT 200 GET /a?b=%20c site.test - 1\n\r\n", 'then the cache, byte by byte';
is $page->( '/a?b=%20c', headers => { Host => 'other.test' } ), "MISS 200 GET /a?b=%20c other.test - 2\n\r\n",
    'another host is another page';
is $page->( '/a?b=%20c', method => 'POST', body => 'form' ), "none 200 POST /a?b=%20c site.test form 3\n\r\n",
    'POST goes to the application';
is $page->( '/a?b=%20c', headers => { Cookie => 'x=y' } ), "none 200 GET /a?b=%20c site.test - 4\n\r\n",
    'so does who has a cookie';
is $page->( '/a?b=%20c', headers => { Authorization => 'Basic x' } ), "none 200 GET /a?b=%20c site.test - 5\n\r\n",
    'or a password';
is $page->( '/a?b=%20c', method => 'HEAD' ), 'HIT 200 ', 'HEAD comes from the cache';

my ( undef, undef, $first ) = $site->ask('/kind?kind=application/json');
my ( undef, undef, $again ) = $site->ask('/kind?kind=application/json');
is_deeply [ map { @{$_}{qw( x-cache content-type )} } $first, $again ],
    [ 'MISS', 'application/json', 'HIT', 'application/json' ], 'the kind of content is kept';

my $long = '/' . 'l' x 300;
like $page->($long), qr/\AMISS 200 GET $long /, 'a long address';
like $page->($long), qr/\AHIT 200 GET $long /, '... is a key as well';
like $page->("${long}x"), qr/\AMISS /, '... of its own';

for my $case ( 'cookie=1', 'control=no-store', 'control=max-age=1,%20Private', 'vary=1', 'status=404', 'status=500' ) {
    like $page->("/not?$case"), qr/\AMISS /, "$case: from the application";
    like $page->("/not?$case"), qr/\AMISS /, '... each time';
}
$site->ends_well;

# memcached is away: pages all the same.
$site = ExampleConf->start( 'page-cache.conf', http => $app, memcached => $ENV{TEST_NGINX_UNUSED_PORT} );
like $page->('/a'), qr/\ABYPASS 200 GET \/a site\.test - 1\n/, 'without memcached';
like $page->('/a'), qr/\ABYPASS 200 GET \/a site\.test - 2\n/, '... each time';
$page->('/a') for 1 .. 20;
is scalar( $site->nginx->log_lines('error') ), 8, 'in few lines of the log';
ok $site->nginx->quit, 'ends';
done_testing();
