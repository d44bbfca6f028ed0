package GroupsModule;

# For suites of servers used as one: the module with the feature groups, which scripts/test --groups
# builds. To be used before TestEnv.

use strict;
use warnings;

use Test::More;

sub import {
    my $module = $ENV{TEST_NGINX_GROUPS_MODULE}
        or plan skip_all => 'needs TEST_NGINX_GROUPS_MODULE, which scripts/test --groups builds';
    -e $module or die "no module $module\n";
    $ENV{TEST_NGINX_MEMCACHED_MODULE} = $module;    ## no critic (RequireLocalizedPunctuationVars)
    return;
}

1;
