#!/bin/bash
# run-tests.sh [-j N] [-o PART] variant... - runs the built tests and ends with "N passed, N failed".
#
# Each tests/<dir>/test_*.c is one binary of build/<variant>/tests. Those of e2e/ run alone, the others N at a time; each has a
# time limit and a directory for what it writes, and what it said is kept in build/test-results/<variant>/. -o runs only the
# tests with PART in their name. Cases are counted: one that crashes is failed, so is a binary that fails outside of its cases (a
# set-up, a sanitizer at exit). Interrupted, it ends what it started and removes its directory.
set -u
cd "$(dirname "$0")/.." || exit 1

jobs=2
only=
while getopts j:o: flag; do
    case $flag in
    j) jobs=$OPTARG ;;
    o) only=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- release

results=build/test-results
work=$(mktemp -d "${TMPDIR:-/tmp}/fmt.XXXXXX") || exit 1
rm -rf "$results"
mkdir -p "$results"
: >"$work/totals"

# Seconds for one binary.
limit_of() { # variant name
    local t=180
    case $2 in e2e/*) t=900 ;; esac
    [ "$1" = release ] || t=$((t * 3))
    echo "${FEEDMILL_TEST_TIMEOUT:-$t}"
}

# ThreadSanitizer of gcc 12 can't live with the address space layouts of newer kernels.
no_aslr=
setarch -R true 2>/dev/null && no_aslr="setarch -R"

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export LSAN_OPTIONS=${LSAN_OPTIONS:-print_suppressions=0:suppressions=$PWD/tests/support/lsan.supp}
export TSAN_OPTIONS=${TSAN_OPTIONS:-second_deadlock_stack=1:suppressions=$PWD/tests/support/tsan.supp}

# The test dies with this script even if that is killed; timeout passes a TERM on.
run_binary() { # variant name directory
    local out=$results/$1/${2//\//.}.log dir=$3 wrap=
    mkdir -p "$results/$1" "$dir/tmp" "$dir/logs"
    [ "$1" = tsan ] && wrap=$no_aslr
    # shellcheck disable=SC2086  # wrap is words
    TMPDIR=$dir/tmp FEEDMILL_TEST_LOGS=$dir/logs exec setpriv --pdeathsig TERM \
        timeout --kill-after=20 "$(limit_of "$1" "$2")" $wrap "build/$1/tests/$2" >"$out" 2>&1 </dev/null
}

count() { # pattern file
    grep -c -- "$1" "$2"
}

# Counts the cases of a finished binary, tells of it, and shows the end of what it said if it failed.
report() { # variant name directory status seconds
    local out=$results/$1/${2//\//.}.log dir=$3 run ok skipped failed
    run=$(count '^\[ RUN      \]' "$out")
    ok=$(count '^\[       OK \]' "$out")
    skipped=$(count '^\[  SKIPPED \]' "$out")
    failed=$((run - ok - skipped))
    failed=$((failed + $(count '^\[  FAILED  \] GROUP' "$out")))
    [ "$failed" = 0 ] && { [ "$4" != 0 ] || [ "$run" = 0 ]; } && failed=1
    echo "$ok $failed" >>"$work/totals"
    if [ "$failed" = 0 ]; then
        printf 'ok    %-7s %-34s %3d passed %6s s\n' "$1" "$2" "$ok" "$5"
    else
        printf 'FAIL  %-7s %-34s %3d passed, %d failed %6s s, status %d%s\n' "$1" "$2" "$ok" "$failed" "$5" "$4" \
            "$([ "$4" = 124 ] && echo ' (timed out)')"
        grep -n 'ERROR  \|LINE  \|FAILED\|ERROR: \|WARNING: \|runtime error' "$out" | head -n 40
        echo "---- the end of $out"
        tail -n 60 "$out"
        for log in "$dir"/logs/*.log; do
            [ -s "$log" ] || continue
            cp "$log" "$results/$1/${2//\//.}.$(basename "$log")"
            echo "---- the end of $(basename "$log")"
            grep -v '"s":"I"' "$log" | tail -n 30 | cut -c1-600
        done
        echo "----"
    fi
    rm -rf "$dir"
}

declare -A pids=() began=()

now() {
    date +%s.%N
}

# Waits for one of those that run, and reports it.
reap_one() {
    local pid status name
    wait -n -p pid
    status=$?
    name=${pids[$pid]-}
    [ -n "$name" ] || return 0
    # shellcheck disable=SC2086  # variant, name and directory
    report $name $status "$(echo "$(now) ${began[$pid]}" | awk '{printf "%.1f", $1 - $2}')"
    unset "pids[$pid]" "began[$pid]"
}

# Numbered directories: the path of a unix socket has to fit into 107 bytes.
started=0
start() { # variant name
    started=$((started + 1))
    run_binary "$1" "$2" "$work/$started" &
    pids[$!]="$1 $2 $work/$started"
    began[$!]=$(now)
}

finish() {
    local pid
    for pid in "${!pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null
    done
    wait
    rm -rf "$work"
}
trap 'echo "run-tests: interrupted" >&2; finish; trap - EXIT; exit 130' INT TERM HUP
trap finish EXIT

names_of() { # variant e2e|others
    local src name skip
    for src in tests/*/test_*.c; do
        name=${src#tests/}
        name=${name%.c}
        case $name in
        e2e/*) [ "$2" = e2e ] || continue ;;
        *) [ "$2" = others ] || continue ;;
        esac
        case $name in *"$only"*) ;; *) continue ;; esac
        if [ "$1" = tsan ]; then
            for skip in ${TSAN_SKIP-}; do
                # shellcheck disable=SC2254  # a pattern it is
                case $name in ${skip/\%/*}) continue 2 ;; esac
            done
        fi
        echo "$name"
    done
}

for variant in "$@"; do
    for kind in others e2e; do
        at_once=$jobs
        [ $kind = e2e ] && at_once=1
        for name in $(names_of "$variant" $kind); do
            while [ ${#pids[@]} -ge "$at_once" ]; do
                reap_one
            done
            start "$variant" "$name"
        done
        while [ ${#pids[@]} -gt 0 ]; do
            reap_one
        done
    done
done

read -r passed failed <<<"$(awk '{p += $1; f += $2} END {print p + 0, f + 0}' "$work/totals")"
echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
