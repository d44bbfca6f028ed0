# Every example in README.md and docs/ does what the page says.
use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv;
use DocPages;

plan skip_all => 'the pages are about the module' if TestEnv::reference_lib();

# What is only looked at, not run: each needs root or minutes.
my $NOT_RUN = 13;

my $root  = TestEnv::root();
my @pages = ( 'README.md', map { s{\A\Q$root\E/}{}r } sort glob "$root/docs/*.md" );
my $not_run = 0;
for my $page (@pages) {
    my @blocks = DocPages::blocks("$root/$page");
    $not_run += grep { $_->{lang} eq 'sh' } @blocks;
    next if !grep { $_->{lang} ne 'text' } @blocks;
    for my $result ( DocPages::run( "$root/$page", $page ) ) {
        my ( $name, $fault ) = @$result;
        ok( !defined $fault, $name ) or diag($fault);
    }
}
is( $not_run, $NOT_RUN, 'blocks that are not run' );

done_testing();
