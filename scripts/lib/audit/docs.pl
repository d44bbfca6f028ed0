#!/usr/bin/env perl
# docs.pl ROOT: whether the pages and the code agree. For scripts/audit.
#
# * README.md has at most 350 lines, and leads to every page of docs/.
# * Links between pages, and the headings they name, are there; so are scripts, their options, suites
#   and configurations that pages name.
# * Every directive of src/module/directives.rs and groups.rs has a heading in docs/directives.md and a place in
#   README.md, and pages name no other.
# * Every method of src/lua/glue/ has a heading with a syntax in docs/ and a link in README.md, and the
#   other way round. Pages call no method that is not there.
# * Every method of a background queue (src/lua/glue/queue.lua) is named in docs/queue.md.
# * Every text that users may see is in the first column of a table in docs/ whose head says what it
#   is (error, message, line, reason), and the other way round. Texts are the string literals of src/
#   with two words or more, and what thiserror shows. In tables, an ellipsis stands for what varies.
#   Texts of others are in tables whose head says "from others". Patterns to look for have to be parts of
#   such texts.
# * Users are told of "the pure-Lua library", never of "the reference".

use strict;
use warnings;
use utf8;
use open qw( :std :encoding(UTF-8) );

use File::Find ();

my $root = shift // die "usage: docs.pl ROOT\n";
chdir $root or die "$root: $!\n";
my $MAX_README = 350;
my $CHECKED    = qr/\A(?:error|message|line|reason|pattern)\z/;
# Literals that nobody sees as they are, each with what it is.
my %UNSEEN = (
    'a constant'                  => 'of the compiler',
    'evaluated at compile time'   => 'of the compiler',
    'bad request …'              => 'a key of what is counted',
    'cannot wait'                 => 'becomes another error on its way',
    'cas unique'                  => 'a name in other texts',
    'server name'                 => 'a name in other texts',
    'bare item'                   => 'a name in the Lua code',
    'the version of the server is no number' => 'then the server is asked something else',
    'config get cluster\\r\\n'             => 'a command of ElastiCache',
    'get AmazonElastiCache:cluster\\r\\n' => 'a command of ElastiCache',
    'STAT sizes_status'           => 'a reply of memcached',
    'STAT sizes_error'            => 'a reply of memcached',
);

my @faults;
sub fault { push @faults, join '', @_; return }

sub slurp {
    my ($path) = @_;
    open my $in, '<', $path or die "$path: $!\n";
    local $/;
    return scalar <$in>;
}

# ---- the pages: text, text without blocks, headings ---------------------------

my @user_pages = ( 'README.md', sort glob 'docs/*.md' );
my %page;
for my $path ( @user_pages, qw( ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md ) ) {
    next if !-e $path;
    my $text = slurp($path);
    ( my $prose = $text ) =~ s/^```.*?^```\s*?$/"\n" x (($& =~ tr{\n}{}))/gmse;
    my ( %anchors, %count );
    for my $heading ( $prose =~ /^#+ +(.*?)\s*$/mg ) {
        my $slug = lc $heading;
        $slug =~ s/\[([^]]*)\]\([^)]*\)/$1/g;
        $slug =~ s/[^\w\- ]//g;
        $slug =~ tr/ /-/;
        my $n = $count{$slug}++;
        $anchors{ $n ? "$slug-$n" : $slug } = 1;
    }
    $page{$path} = { text => $text, prose => $prose, anchors => \%anchors };
}

my $lines = () = $page{'README.md'}{text} =~ /\n/g;
fault("README.md has $lines lines, more than $MAX_README") if $lines > $MAX_README;

# ---- links, and files that are named ------------------------------------------

my %linked;
for my $path ( sort keys %page ) {
    ( my $prose = $page{$path}{prose} ) =~ s/`[^`\n]*`/code/g;
    while ( $prose =~ /\]\(\s*([^)\s]+)\s*\)/g ) {
        my $target = $1;
        next if $target =~ /\A[a-z]+:/;
        my ( $file, $anchor ) = split /#/, $target, 2;
        my $to = length $file ? ( $path =~ s{[^/]*\z}{}r ) . $file : $path;
        1 while $to =~ s{[^/]+/\.\./}{};
        if ( !-e $to ) { fault("$path: dead link $target"); next }
        $linked{$path}{$to} = 1;
        $linked{$path}{"$to#$anchor"} = 1 if defined $anchor;
        fault("$path: no such heading: $target")
            if defined $anchor && $page{$to} && !$page{$to}{anchors}{$anchor};
    }
    next if $path eq 'CHANGELOG.md';    # it tells of the past
    my %seen;
    for my $name ( $page{$path}{text} =~ m{(?<![\w/.@-])((?:scripts|nginx-conf|t|docs)/[\w./*-]*\w)}g ) {
        next if $seen{$name}++;
        my $here = $path =~ m{\Adocs/} && -e "docs/$name";
        fault("$path: there is no $name") if !$here && !grep { -e } glob $name;
    }
    while ( $page{$path}{text} =~ m{(?<![\w/])(scripts/\w[\w-]*)((?: +[\w./-]+)*)}g ) {
        my ( $script, $words ) = ( $1, $2 );
        next if !-f $script;
        my $help = slurp($script);
        for my $option ( $words =~ /(?<=\s)(--[\w-]+)/g ) {
            fault("$path: $script has no option $option") if $help !~ /^#.*\Q$option\E\b/m;
        }
    }
}
for my $path ( grep {m{\Adocs/}} @user_pages ) {
    fault("README.md has no link to $path") if !$linked{'README.md'}{$path};
}
for my $path (@user_pages) {
    fault("$path says \"the reference\": say \"the pure-Lua library\"")
        if $page{$path}{prose} =~ /\bthe reference\b/i;
}

# ---- directives -----------------------------------------------------------------

my %directive = map { $_ => 1 } slurp('src/module/directives.rs') =~ /c"(lua_memcached_\w+)"/g,
    slurp('src/module/groups.rs') =~ /(?:of_upstream\(|name: string\()\s*c"(lua_memcached_\w+)"/g;
%directive or die "docs.pl finds no directive\n";
my %headed = map { $_ => 1 } $page{'docs/directives.md'}{prose} =~ /^#+ (lua_memcached_\w+)$/mg;
for my $name ( sort keys %directive ) {
    fault("docs/directives.md has no heading $name") if !$headed{$name};
    fault("README.md does not name $name") if !$linked{'README.md'}{"docs/directives.md#$name"};
}
for my $path (@user_pages) {
    my %seen;
    for my $name ( grep { !$seen{$_}++ } $page{$path}{text} =~ /(?<!\$)\b(lua_memcached_\w+)/g ) {
        fault("$path: there is no directive $name") if !$directive{$name};
    }
}

# ---- methods --------------------------------------------------------------------

my ( %method, %sock_method, %client_method );
for my $path ( glob 'src/lua/glue/*.lua' ) {
    my $lua = slurp($path);
    $method{$_}      = 1 for $lua =~ /^(?:function )?_M\.([a-z]\w*)\b/mg;
    $sock_method{$_} = 1 for $lua =~ /^(?:function )?Sock\.([a-z]\w*)\b/mg;
    $client_method{$_} = 1 for $lua =~ /^function Client\.([a-z]\w*)\b/mg;
}
%method && %sock_method or die "docs.pl finds no methods\n";
my %documented;
for my $path ( grep {m{\Adocs/}} @user_pages ) {
    while ( $page{$path}{prose} =~ /^#{2,4} (\w+)\n(.*?)(?=^#|\z)/gms ) {
        my ( $name, $section ) = ( $1, $2 );
        next if $section !~ /^\*\*syntax:\*\*/m;
        fault("$path: \"$name\" has no syntax of that name") if $section !~ /^\*\*syntax:\*\* `[^`]*:$name\(/m;
        fault("$path: there is no method $name") if !$method{$name};
        $documented{$name} = "$path#$name";
    }
}
for my $name ( sort keys %method ) {
    if ( !$documented{$name} ) { fault("docs/ has no heading for the method $name") }
    elsif ( !$linked{'README.md'}{ $documented{$name} } ) { fault("README.md has no link to $documented{$name}") }
}
for my $name ( sort keys %sock_method ) {
    fault("docs/api.md does not name sock:$name") if $page{'docs/api.md'}{prose} !~ /\bsock:$name\(/;
}
for my $name ( slurp('src/lua/glue/queue.lua') =~ /^(?:function )?Queue\.([a-z]\w*)\b/mg ) {
    fault("docs/queue.md does not name q:$name") if $page{'docs/queue.md'}{prose} !~ /\bq:$name\(/;
}
for my $name ( sort keys %client_method ) {
    fault("docs/client.md does not name client:$name") if $page{'docs/client.md'}{prose} !~ /\bclient:$name\(/;
}
for my $path (@user_pages) {
    my %seen;
    for my $call ( grep { !$seen{$_}++ } $page{$path}{text} =~ /\b((?:memc|memcached|sock):\w+)\(/g ) {
        my ( $of, $name ) = split /:/, $call;
        my $known = $of eq 'sock' ? $sock_method{$name} : $method{$name} || $client_method{$name};
        fault("$path: there is no $call") if !$known;
    }
}

# ---- texts of the code ------------------------------------------------------------

# With an ellipsis for what varies: text => where it is.
my ( %text_of, %word_of );

sub add_text {
    my ( $where, $literal ) = @_;
    $literal =~ s/\\\n\s*//g;
    $literal =~ s/\\(["'\\])/$1/g;
    $literal =~ s/\A(?:[\s,.:]|…)+|[\s:,]+\z//g;
    return if !telling($literal) || $UNSEEN{$literal};
    $text_of{$literal} //= $where;
    return;
}

# Two words at least.
sub telling { return $_[0] =~ /[A-Za-z]{2,}\S*\s+\S*?[A-Za-z]{2,}/ }

File::Find::find(
    {   no_chdir => 1,
        wanted   => sub {
            return if !/\.rs\z/ || m{tests?(?:/|\.rs\z)} || /_absent\.rs\z/ || m{/fault\.rs\z};
            my $rust = slurp($_);
            $rust =~ s/^#\[cfg\(test\)\]\nmod \w+ \{\n.*?^\}\n//gms;
            $rust =~ s{^\s*//.*$}{}mg;
            $rust =~ s{\s//[^"\n]*$}{}mg;
            my $where = $_;
            $word_of{$1} //= $where while $rust =~ /#\[error\("(\w+)"\)\]/g;
            while ( $rust =~ /"((?:[^"\\]|\\.)*)"/gs ) {
                my $literal = $1;
                $literal =~ s/\{[^{}]*\}|%V/…/g;
                add_text( $where, $literal );
            }
        }
    },
    'src'
);
for my $path ( glob 'src/lua/glue/*.lua' ) {
    ( my $lua = slurp($path) ) =~ s/--.*$//mg;
    $lua =~ s/"\s*\.\.\s*[^"]+?\s*\.\.\s*"/…/g;
    $lua =~ s/"\s*\.\.\s*/…" /g;
    $lua =~ s/'[^'\n]*'/''/g;
    add_text( $path, $1 ) while $lua =~ /"((?:[^"\\\n]|\\.)*)"/g;
}
( keys %text_of ) > 50 or die "docs.pl finds hardly any text in src/\n";

# ---- texts of the pages -------------------------------------------------------------

my ( %shown, %told, %others );    # text => page; %told: again, or a part of one
for my $path (@user_pages) {
    my $kind;
    for my $line ( split /\n/, $page{$path}{prose} ) {
        if ( $line !~ /\A\|/ ) { undef $kind; next }
        my ($first) = $line =~ /\A\|\s*((?:`[^`]*`|[^|`])*?)\s*\|/ or next;
        if ( !defined $kind ) {
            $kind =
                  $first =~ /from others\z/ ? \%others
                : $first !~ $CHECKED        ? 0
                : $path eq 'README.md'      ? \%told
                : $first eq 'pattern'       ? \%told
                :                             \%shown;
            next;
        }
        next if !$kind;
        $kind->{$_} //= $path for $first =~ /`([^`]+)`/g;
    }
}
# Symptoms are headings.
$told{$_} = 'docs/troubleshooting.md' for $page{'docs/troubleshooting.md'}{prose} =~ /^#+ `([^`]+)`$/mg;
# The prose of the API names errors, too.
my %named;
for my $part ( split /\n\s*\n/, $page{'docs/api.md'}{prose} ) {
    next if $part !~ /(?:\A|\s)(?:Errors:|Raises\b)(.*)/s;
    my $errors = $1;
    $named{$_} = 'docs/api.md' for grep {/\s|\A[A-Z_]+\z/} $errors =~ /`([^`]+)`/g;
}

# A text as a pattern, in which $any matches what varies.
sub pattern {
    my ( $text, $any ) = @_;
    return join $any, map {quotemeta} split /…/, $text, -1;
}

# From the code to the pages.
my %form = map { $_ => pattern( $_, '.+?' ) } grep { telling($_) } keys %shown;
for my $text ( sort keys %text_of ) {
    my $of_code = pattern( $text, '.*?' );
    next if grep { /$of_code/ || $text =~ /\A$form{$_}\z/ } keys %form;
    fault("no table in docs/ has \"$text\" ($text_of{$text})");
}
for my $word ( sort keys %word_of ) {
    fault("no table in docs/ has \"$word\" ($word_of{$word})") if !$shown{$word};
}

# From the pages to the code. The longest texts first, as they say most.
my @known = map { my $any = pattern( $_, '(.*?)' ); $any =~ s/\(\.\*\?\)\z/(.*)/; [ $_, qr/$any/ ] }
    sort { length $b <=> length $a || $a cmp $b } keys %text_of, grep { telling($_) } keys %others;

# What of a page's text nobody says.
sub unknown_part {
    my ($text) = @_;
    return '' if $word_of{$text} || $others{$text};
    return $text if !telling($text);
    # The page may say only a part of it, or stand for several.
    my $form = pattern( $text, '.+?' );
    return '' if grep { $_->[0] =~ /$form/ } @known;
    my @parts = ($text);
    for my $known (@known) {
        @parts = map { without( $_, $known->[1] ) } @parts;
    }
    # what is left between two of them may be a part of a third
    return join ' ', grep {
        my $part = s/\A\s+|\s+\z//gr;
        telling($part) && !grep { index( $_->[0], $part ) >= 0 } @known
    } @parts;
}

# What is left of a text without what a pattern fixes.
sub without {
    my ( $text, $pattern ) = @_;
    my @varying = $text =~ $pattern or return $text;
    my ( $before, $behind ) = ( substr( $text, 0, $-[0] ), substr $text, $+[0] );
    return $before, ( $#+ ? grep {defined} @varying : () ), $behind;
}

for my $list ( \%shown, \%told, \%named ) {
    for my $text ( sort keys %$list ) {
        my $unknown = unknown_part($text);
        fault("$list->{$text}: \"$text\": nobody says \"$unknown\"") if length $unknown;
    }
}

# ---- the end ------------------------------------------------------------------------

if (@faults) {
    print STDERR "$_\n" for @faults;
    print STDERR scalar(@faults), " faults of the documentation (scripts/lib/audit/docs.pl says what it wants)\n";
    exit 1;
}
printf "%d pages, %d directives, %d methods, %d texts\n", scalar @user_pages, scalar keys %directive,
    scalar keys %method, scalar( keys %text_of ) + keys %word_of;
