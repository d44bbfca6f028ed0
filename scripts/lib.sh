# shellcheck shell=bash
# What the scripts share: messages, packages, nginx's whereabouts, processes.
# What belongs to one of them only is in the folders of scripts/lib.
# Sourced, never run. Progress goes to stderr, so that stdout stays a result.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Absolute, because cargo resolves a relative one against the directory it runs in.
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
export CARGO_TARGET_DIR=$target
PATH=$PATH:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin

module_file=ngx_http_lua_memcached_module.so
# shellcheck disable=SC2034 # used by the scripts
module_built=$target/release/lib$module_file

say() { printf '==> %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Prints the comment at the head of a script: its help text.
usage() { sed -n '2,/^[^#]/{/^# shellcheck/d;s/^# \{0,1\}//p;}' "$0"; }

# ---- clean-up: commands run at exit, last one first ------------------------

exit_commands=()
at_exit() { exit_commands+=("$*"); }
run_exit_commands() {
    local status=$? i
    set +e
    for ((i = ${#exit_commands[@]} - 1; i >= 0; i--)); do
        eval "${exit_commands[i]}"
    done
    exit "$status"
}
trap run_exit_commands EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Ends the process $1 that this script started: asks, waits 5 s, then insists.
stop_pid() {
    local pid=$1 _
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in {1..100}; do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
}

# ---- packages --------------------------------------------------------------

as_root() {
    if [ "$EUID" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root (or sudo): $*"
    fi
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# True when bindgen will find a libclang and clang's own headers, of whatever version.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null &&
        compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null
}

# Puts into `missing` those of the given packages that are not installed.
find_missing() {
    local package
    missing=()
    for package; do
        if [ "$package" = libclang-dev ] && has_libclang; then
            continue
        fi
        is_installed "$package" || missing+=("$package")
    done
}

# need_packages NAME...: installs those that are missing, from the system's own sources.
need_packages() {
    local missing lock
    if ! command -v dpkg-query >/dev/null; then
        warn "not a Debian system; these packages (or their like) must be there: $*"
        return 0
    fi
    find_missing "$@"
    [ ${#missing[@]} -gt 0 ] || return 0

    # One installation at a time: a second script waits here and then finds nothing missing.
    exec {lock}</var/lib/dpkg
    flock "$lock"
    find_missing "$@"
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing Debian packages: ${missing[*]}"
        install_packages "${missing[@]}" >&2
    fi
    exec {lock}<&-
}

# In a subshell, so that its clean-up happens as soon as apt-get is done.
install_packages() (
    policy=/usr/sbin/policy-rc.d
    exit_commands=()
    trap run_exit_commands EXIT
    if [ "$EUID" -ne 0 ] && ! command -v sudo >/dev/null; then
        fail "only root can install packages: run this as root, or install them first: $*"
    fi
    # The packages' own nginx and memcached services are not wanted: nothing may
    # be left running. An existing policy is the administrator's and stays.
    if [ ! -e $policy ] && [ ! -L $policy ]; then
        at_exit "as_root rm -f $policy"
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
    fi
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" update
    as_root "${apt[@]}" install --no-install-recommends "$@"
)

# ---- Rust ------------------------------------------------------------------

# rust_version DIR: the older of the versions of DIR's cargo and rustc; nothing if one does not run.
# DIR ends with a slash, or is empty for those in PATH.
rust_version() {
    local cargo rustc
    cargo=$("$1cargo" --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p') || return 0
    rustc=$("$1rustc" --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p') || return 0
    [ -n "$cargo" ] && [ -n "$rustc" ] || return 0
    printf '%s\n' "$cargo" "$rustc" | sort -V | head -n 1
}

# version_is_at_least HAVE WANT
version_is_at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Sees to it that PATH has a cargo and a rustc that are new enough.
need_cargo() {
    local want have own=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin/ how
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    have=$(rust_version '')
    if [ -n "$have" ] && version_is_at_least "$have" "$want"; then return 0; fi
    # The distribution's comes first in PATH, and is older as a rule.
    if [ -x "${own}cargo" ]; then
        local others
        others=$(rust_version "$own")
        if [ -n "$others" ] && version_is_at_least "$others" "$want"; then
            PATH=${own%/}:$PATH
            return 0
        fi
    fi
    how="install it with rustup, which needs no root (https://rustup.rs):
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
and run this again. Debian 12 (Rust 1.63) and 13 (1.85) have older ones. The module can also be built
on another machine, and be installed here with: scripts/install --module FILE"
    if command -v rustup >/dev/null || [ -x "${own}rustup" ]; then
        how="get it with: rustup toolchain install stable && rustup default stable"
    fi
    if [ -n "$have" ]; then
        fail "found Rust $have ($(command -v cargo)), but Rust $want or newer is needed: $how"
    elif command -v cargo >/dev/null; then
        fail "$(command -v cargo) or its rustc does not run, and Rust $want or newer is needed: $how"
    fi
    fail "cargo is missing: Rust $want or newer is needed: $how"
}

# Where scripts/vendor puts the crates; with them nothing is fetched.
vendor=$root/vendor

# Options of cargo for a build: those crates, if they are there.
cargo_options() {
    [ -d "$vendor" ] || return 0
    printf '%s\n' --offline --config 'source.crates-io.replace-with="vendored"' \
        --config "source.vendored.directory='$vendor'"
}

# ---- nginx -----------------------------------------------------------------

# Sets nginx_binary, the one of TEST_NGINX_BINARY or the installed one.
find_nginx() {
    nginx_binary=${TEST_NGINX_BINARY:-$(command -v nginx || true)}
    [ -x "$nginx_binary" ] || fail "nginx is not installed"
    nginx_options=$("$nginx_binary" -V 2>&1)
}

# nginx_version: 1.22.1
nginx_version() { sed -n 's|^nginx version: [^/]*/\([0-9.]*\).*|\1|p' <<<"$nginx_options"; }

# nginx_option NAME: the value nginx was configured with, such as `modules-path`.
nginx_option() { sed -n "s/.* --$1=\('\([^']*\)'\|\([^ ]*\)\).*/\2\3/p" <<<"$nginx_options"; }

# Where `load_module` finds the modules of the distribution.
nginx_modules_path() {
    local path
    path=$(nginx_option modules-path)
    printf '%s\n' "${path:-$(nginx_option prefix)/modules}"
}

has_own_tree() { [ -n "${NGINX_SOURCE_DIR:-}${NGINX_BUILD_DIR:-}" ]; }

# The packages a build needs; nginx's own only when its tree is the one built against.
build_packages() {
    echo gcc libc6-dev libclang-dev
    has_own_tree || echo nginx libnginx-mod-http-lua nginx-dev make
}

# Sees to it that NGINX_SOURCE_DIR and NGINX_BUILD_DIR name an nginx tree to build
# against: the user's, or else the one of nginx-dev, configured as Debian's binary was.
prepare_nginx_tree() {
    # shellcheck disable=SC2046 # one word per package
    need_packages $(build_packages)
    if has_own_tree; then return 0; fi
    find_nginx

    local source version binary_version builddir stamp lock log
    source=$(nginx_option prefix)/src
    if [ ! -x "$source/configure" ] || [ ! -f "$source/conf_flags" ]; then
        fail "no nginx source tree in $source: set NGINX_SOURCE_DIR and NGINX_BUILD_DIR to a configured one"
    fi
    version=$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$source/src/core/nginx.h")
    binary_version=$(nginx_version)
    [ "$version" = "$binary_version" ] ||
        fail "nginx is $binary_version but nginx-dev is $version: a module built for one is refused by the other"

    builddir=$target/nginx-build/$version
    # Everything that changes what configure writes.
    stamp=$( (
        printf '%s\n' "$nginx_options" "$builddir"
        cat "$source/conf_flags"
        find "$source" -type f -printf '%P %s %T@\n' | sort
    ) | sha256sum)
    mkdir -p "$target/nginx-build"
    exec {lock}>"$target/nginx-build/.lock"
    flock "$lock"
    if [ "$(cat "$builddir/.stamp" 2>/dev/null)" != "$stamp" ]; then
        say "configuring the source tree of nginx $version"
        rm -rf "$builddir"
        mkdir -p "$builddir"
        log=$builddir.log
        (
            # shellcheck disable=SC1091
            . "$source/conf_flags"
            cd "$source"
            ./configure "${NGX_CONF_FLAGS[@]}" --builddir="$builddir"
        ) >"$log" 2>&1 || {
            tail -n 20 "$log" >&2
            fail "nginx's configure failed; all it said is in $log"
        }
        printf '%s\n' "$stamp" >"$builddir/.stamp"
    fi
    exec {lock}>&-
    export NGINX_SOURCE_DIR=$source NGINX_BUILD_DIR=$builddir
}

# ---- loopback servers ------------------------------------------------------

# A TCP port of 127.0.0.1 that is free now. Another process may take it before it
# is used: whoever listens on it tries again with the next.
free_port() {
    perl -MIO::Socket::INET -e '
        my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1", LocalPort => 0)
            or die "no free port: $!\n";
        print $socket->sockport, "\n"'
}

# wait_for_port PORT PID: until PID's server accepts on PORT, at most 10 s.
wait_for_port() {
    local _
    for _ in {1..200}; do
        kill -0 "$2" 2>/dev/null || return 1
        if (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
            return 0
        fi
        sleep 0.05
    done
    return 1
}

# ---- suites ----------------------------------------------------------------

# The suites below t/, by folder.
all_suites() {
    (cd "$root" && find t -path t/lib -prune -o -path 't/servroot*' -prune -o -name '*.t' -print | sort)
}

# What the suites need, besides what the build needs. openssl makes the TLS suites' certificates;
# examples of the documentation use curl; memc, pylibmc and twemproxy use the servers of groups beside them.
# shellcheck disable=SC2034 # used by scripts that source this
suite_packages=(nginx libnginx-mod-http-lua memcached openssl perl libtest-base-perl curl lua-cjson php-cli php-memcached
    libnginx-mod-http-memc libnginx-mod-http-upstream-fair python3-pylibmc nutcracker)
