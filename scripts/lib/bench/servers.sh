# shellcheck shell=bash disable=SC2034,SC2154 # some variables are the caller's
# The servers of scripts/bench: memcached with all values, nginx with all contestants, each on its
# CPU, and what can be asked of them. Sourced, never run.
#
# The caller sets what its options say: $module, $reference, $multiplex, $pinned, and finds nginx.

# ---- contestants -----------------------------------------------------------

# The functions that contestants.lua has for each library.
functions=(get hot get-10 multi-get set set-100k get-1m pass-1m)
# Who runs them, and who is there only for keys in five servers.
lua_contestants=(lua module shared client)
group_contestants=(group group-shared by-hand sharded twemproxy)

# contestants_of WORKLOAD: in the order of the first round. Both of the module are next to lua.
contestants_of() {
    local all
    case $1 in
    get) all=(empty wait memcached_pass memc module lua shared client) ;;
    hot) all=(empty memcached_pass memc module lua shared) ;;
    pass-1m) all=(memcached_pass memc module lua shared) ;;
    get-10) all=(module lua shared client) ;;
    set) all=(memc module lua shared client) ;;
    set-100k) all=(memc module lua shared) ;;
    group-get) all=(twemproxy group module by-hand shared group-shared sharded) ;;
    group-*) all=(twemproxy group module shared group-shared sharded) ;;
    *) all=(module lua shared) ;;
    esac
    if [ "$has_memc" = no ]; then all=("${all[@]/%memc}"); fi
    if [ "$has_twemproxy" = no ]; then all=("${all[@]/%twemproxy}"); fi
    printf '%s\n' "${all[@]}" | sed '/^$/d'
}

# base_of WORKLOAD: the contestant that its ratios are to.
base_of() {
    case $1 in
    hot) echo empty ;;
    group-*) echo module ;;
    *) echo lua ;;
    esac
}

# locations_of CONTESTANT WORKLOAD: what it asks for, to be checked.
locations_of() {
    if [ "$2" = mixed ]; then set -- "$1" get get-1m set-100k; fi
    local contestant=$1
    shift
    printf "$contestant/%s\n" "$@"
}

# ---- CPUs ------------------------------------------------------------------

# usable_cpus: the numbers of those that this process may use, out of a list such as 0-2,4.
usable_cpus() {
    sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status | tr , '\n' | while IFS=- read -r first last; do
        seq "$first" "${last:-$first}"
    done
}

# What a command is put behind, to run on the worker's CPU or beside it.
on_workers_cpu=()
on_other_cpus=()
choose_cpus() {
    local cpus
    mapfile -t cpus < <(usable_cpus)
    if [ "$pinned" = yes ] && [ ${#cpus[@]} -ge 2 ] && command -v taskset >/dev/null; then
        on_workers_cpu=(taskset -c "${cpus[0]}")
        on_other_cpus=(taskset -c "$(IFS=,; echo "${cpus[*]:1}")")
    else
        pinned=no
    fi
}

# ---- starting --------------------------------------------------------------

# start LOG COMMAND...: sets `pid`, which is stopped at exit.
start() {
    local log=$1
    shift
    "$@" >>"$log" 2>&1 </dev/null &
    pid=$!
    at_exit "stop_pid $pid"
}

start_memcached() {
    local user=() _
    # memcached refuses to run as root.
    if [ "$EUID" -eq 0 ]; then user=(-u nobody); fi
    for _ in 1 2 3; do
        memcached_port=$(free_port)
        start "$run/memcached.log" "${on_other_cpus[@]}" memcached "${user[@]}" -l 127.0.0.1 -p "$memcached_port" -U 0 \
            -m 1024 -I 4m -t 4 -c 8192 -b 4096
        if wait_for_port "$memcached_port" "$pid"; then
            memcached_pid=$pid
            memcached_pids=("$pid")
            perl "$root/scripts/lib/bench/data.pl" fill "$memcached_port" || fail "cannot fill memcached"
            return 0
        fi
    done
    cat "$run/memcached.log" >&2
    fail "memcached does not start"
}

# Five memcacheds, each with all the small and medium keys, so that each choice finds its own; and
# twemproxy, which distributes them as it likes.
group_ports=()
proxy_port=0
proxy_pid=
start_group() {
    local user=() _ port
    if [ "$EUID" -eq 0 ]; then user=(-u nobody); fi
    for _ in {1..15}; do
        port=$(free_port)
        start "$run/memcached.log" "${on_other_cpus[@]}" memcached "${user[@]}" -l 127.0.0.1 -p "$port" -U 0 \
            -m 256 -t 1 -c 8192 -b 4096
        wait_for_port "$port" "$pid" || continue
        perl "$root/scripts/lib/bench/data.pl" fill "$port" small medium || fail "cannot fill memcached"
        group_ports+=("$port")
        memcached_pids+=("$pid")
        [ ${#group_ports[@]} -lt 5 ] || break
    done
    [ ${#group_ports[@]} -eq 5 ] || fail "memcached does not start"
    functions+=(group-get group-multi-get)
    lua_contestants+=("${group_contestants[@]}")
    if [ "$has_twemproxy" = yes ]; then start_twemproxy; fi
}

start_twemproxy() {
    local _ port
    for _ in 1 2 3; do
        proxy_port=$(free_port)
        {
            printf 'five:\n  listen: 127.0.0.1:%s\n  hash: fnv1a_64\n  distribution: ketama\n' "$proxy_port"
            printf '  timeout: 10000\n  backlog: 4096\n  preconnect: true\n  servers:\n'
            for port in "${group_ports[@]}"; do printf '   - 127.0.0.1:%s:1\n' "$port"; done
        } >"$run/twemproxy.yml"
        # its statistics would take a port of all addresses
        start "$run/twemproxy.log" "${on_other_cpus[@]}" nutcracker -c "$run/twemproxy.yml" -a 127.0.0.1 -s "$(free_port)" -v 2
        if wait_for_port "$proxy_port" "$pid"; then
            proxy_pid=$pid
            return 0
        fi
    done
    cat "$run/twemproxy.log" >&2
    fail "twemproxy does not start"
}

# A location for each function of each contestant that is Lua.
lua_locations() {
    local contestant function directives
    for contestant in "${lua_contestants[@]}"; do
        directives=
        if [[ $contestant = *shared || $contestant = client ]]; then directives="lua_memcached_multiplex $multiplex; "; fi
        for function in "${functions[@]/%/}" "${functions[@]/%//check}"; do
            printf 'location = /%s/%s { %scontent_by_lua_block { bench["%s"]["%s"]() } }\n' \
                $contestant "$function" "$directives" $contestant "$function"
        done
    done
}

write_conf() {
    printf 'server 127.0.0.1:%s;\n' "${group_ports[@]}" >"$run/group_servers.conf"
    lua_locations >"$run/locations.conf"
    {
        # shellcheck disable=SC2016 # nginx's variables
        echo 'split_clients "$connection-$connection_requests" $huge_key {'
        printf '0.33%% huge-%s;\n' {100001..100299}
        echo '* huge-100300; }'
    } >"$run/huge_keys.conf"
    sed -e '/^#/d' \
        -e "s|@MODULES_PATH@|$modules_path|" \
        -e "s|@MODULE@|$module|" \
        -e "s|@LISTEN_PORT@|$listen_port|" \
        -e "s|@MEMCACHED_PORT@|$memcached_port|" \
        -e "s|@BENCH_DIR@|$root/scripts/lib/bench|" \
        -e "s|@LUA_CONTESTANTS@|${lua_contestants[*]}|" \
        -e "s|@GROUP_PORTS@|$(IFS=,; echo "${group_ports[*]}")|" \
        -e "s|@PROXY_PORT@|$proxy_port|" \
        -e "s|@REFERENCE@|$reference|" \
        "$root/scripts/lib/bench/nginx.conf" >"$run/nginx.conf"
    if [ "$has_groups" = no ]; then sed -i -e '/only with groups$/d' "$run/nginx.conf"; fi
    if [ "$has_memc" = no ]; then
        sed -i -e '/only with memc$/d' -e '/# with memc$/,/# end of memc$/d' "$run/nginx.conf"
    fi
}

# set_nginx_command DIRECTIVES: sets the array `nginx_command`.
set_nginx_command() {
    nginx_command=("$nginx_binary" -p "$run/" -c "$run/nginx.conf" -e "$run/error.log" -g "daemon off; $1")
}

start_nginx() {
    local _ nginx_command
    for _ in 1 2 3; do
        listen_port=$(free_port)
        write_conf
        set_nginx_command ''
        start "$run/nginx.log" "${on_workers_cpu[@]}" "${nginx_command[@]}"
        if wait_for_port "$listen_port" "$pid"; then
            worker_pid=$(http_get /pid)
            return 0
        fi
    done
    cat "$run/nginx.log" >&2
    fail "nginx does not start"
}

# ---- asking ----------------------------------------------------------------

# http_get PATH: the body of the answer.
http_get() {
    local connection line
    exec {connection}<>"/dev/tcp/127.0.0.1/$listen_port"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&"$connection"
    while IFS= read -r -t 10 -u "$connection" line && [ "$line" != $'\r' ]; do :; done
    timeout 10 cat <&"$connection"
    exec {connection}>&-
}

# requests_served: how many requests nginx has had, with those of this function and without them.
# Waits until it has done them all: those that wrk no longer waits for when its time is over are
# work, too.
requests_served() {
    local active served asked
    for ((asked = 1; asked <= 200; asked++)); do
        read -r active served < <(http_get /requests | awk 'NR == 1 { active = $3 } NR == 3 { print active, $3 }')
        if [ "$active" = 1 ]; then
            printf '%s %s\n' "$served" $((served - asked))
            return 0
        fi
        sleep 0.05
    done
    fail "nginx does not end its requests"
}

# check_answers PATH...: fails unless they are right.
check_answers() {
    perl "$root/scripts/lib/bench/data.pl" check "$listen_port" "$memcached_port" "$@" || {
        tail -n 5 "$run/error.log" >&2
        fail "a wrong answer"
    }
}

no_errors_logged() {
    if grep -E '\[(error|crit|alert|emerg)\]' "$run/error.log" | head -n 20 >&2; then
        fail "nginx logged the errors above"
    fi
}

# warm_up CONTESTANT/FUNCTION C: connections are made, code is compiled; a third of a second is
# enough for that.
warm_up() {
    timeout -s INT 0.3 "${on_other_cpus[@]}" wrk -t 1 -c "$2" -d 1s "http://127.0.0.1:$listen_port/$1" >/dev/null || true
}

# load CONTESTANT/FUNCTION C [ARGUMENT...]: wrk for one measurement, with arguments for its script.
load() {
    local path=$1 c=$2
    shift 2
    "${on_other_cpus[@]}" wrk -t 1 -c "$c" -d "${seconds}s" --timeout 30s -s "$root/scripts/lib/bench/wrk.lua" \
        "http://127.0.0.1:$listen_port/$path" -- "$@"
}

# read_result NAME: from wrk's output on stdin to requests, duration, p50, p99.
read_result() {
    local _ failures
    read -r _ requests duration failures p50 p99 < <(grep '^bench ') || fail "$1: wrk says nothing"
    if [ "$failures" != 0 ] || [ "$requests" = 0 ]; then
        tail -n 5 "$run/error.log" >&2
        fail "$1: $failures of $requests requests failed"
    fi
}
