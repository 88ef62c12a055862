#!/bin/bash
# fuzz.sh [seconds] | fuzz.sh coverage - the targets of tests/fuzz, built with clang's libFuzzer, ASan and UBSan, two at a time.
#
# seconds (60) is for each target; ONLY=<part of a name> picks some. What was found new goes to build/fuzz/corpus, the inputs
# in tests/fuzz/corpus stay as they are. An input that breaks something is kept as build/fuzz/crash-*, with the command that
# repeats it. coverage runs the kept inputs alone and prints the lines of the parsers that they reach; less than 90 % of all of
# them fails.
set -u
cd "$(dirname "$0")/.." || exit 1

what=${1:-60}
only=${ONLY:-}
at_once=2
least=90
parsers="common/http_head.c common/http_chunk.c common/http_read.c common/query.c common/names.c common/ids.c common/ts.c
    common/base64url.c common/text.c common/ip.c common/http_accept.c feed-api/page_tag.c feed-api/item_json.c
    feed-api/bulk_parse.c feed-api/cursor.c feed-api/token.c"

targets() {
    local src name
    for src in tests/fuzz/fuzz_*.c; do
        name=$(basename "$src" .c)
        name=${name#fuzz_}
        case $name in *"$only"*) echo "$name" ;; esac
    done
}

build() { # variant
    local name wanted=()
    for name in $(targets); do
        [ -n "$(ls "tests/fuzz/corpus/$name" 2>/dev/null)" ] ||
            { echo "fuzz: tests/fuzz/corpus/$name has no inputs"; exit 1; }
        wanted+=("build/$1/tests/fuzz/fuzz_$name")
    done
    [ ${#wanted[@]} -gt 0 ] || { echo "fuzz: no target has \"$only\" in its name"; exit 1; }
    make --no-print-directory -j"${JOBS:-$(nproc)}" V="$1" "${wanted[@]}" || exit 1
}

run_one() { # name
    local name=$1 log=build/fuzz/$1.log
    mkdir -p "build/fuzz/corpus/$name"
    setpriv --pdeathsig TERM "build/fuzz/tests/fuzz/fuzz_$name" -max_total_time="$what" -max_len=4096 -timeout=20 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="build/fuzz/crash-$name-" \
        "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1 </dev/null
}

# Says what became of it; one that tried nothing is not passed.
report() { # name status
    local name=$1 log=build/fuzz/$1.log runs crash
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$2" = 0 ] && [ "${runs:-0}" -gt 0 ]; then
        printf 'ok    fuzz %-10s %5d s %10d inputs\n' "$name" "$what" "$runs"
        return 0
    fi
    printf 'FAIL  fuzz %-10s status %d, see %s\n' "$name" "$2" "$log"
    grep -v '^#[0-9]*\s\(NEW\|REDUCE\|pulse\|RELOAD\)' "$log" | tail -n 60
    crash=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    [ -n "$crash" ] && printf 'again: build/fuzz/tests/fuzz/fuzz_%s %s\nin base64: %s\n' "$name" "$crash" "$(base64 -w0 "$crash")"
    return 1
}

declare -A names=()
failed=

reap() {
    local pid status
    wait -n -p pid
    status=$?
    report "${names[$pid]}" "$status" || failed+=" ${names[$pid]}"
    unset "names[$pid]"
}

finish() {
    local pid
    for pid in "${!names[@]}"; do
        kill -TERM "$pid" 2>/dev/null
    done
    wait
}

fuzz() {
    local name
    build fuzz
    trap 'finish; trap - EXIT; exit 130' INT TERM HUP
    trap finish EXIT
    for name in $(targets); do
        while [ ${#names[@]} -ge $at_once ]; do
            reap
        done
        run_one "$name" &
        names[$!]=$name
    done
    while [ ${#names[@]} -gt 0 ]; do
        reap
    done
    [ -z "$failed" ] || { echo "fuzz: FAILED:$failed"; exit 1; }
    echo "fuzz: passed"
}

coverage() {
    local name profiles=() objects=() out=build/cov/profiles
    build cov
    rm -rf $out
    mkdir -p $out
    for name in $(targets); do
        LLVM_PROFILE_FILE=$out/$name.raw "build/cov/tests/fuzz/fuzz_$name" -runs=0 "tests/fuzz/corpus/$name" \
            >"build/cov/$name.log" 2>&1 || { cat "build/cov/$name.log"; echo "fuzz: FAILED: $name"; exit 1; }
        profiles+=("$out/$name.raw")
        [ ${#objects[@]} = 0 ] || objects+=(-object)
        objects+=("build/cov/tests/fuzz/fuzz_$name")
    done
    llvm-profdata merge -sparse -o $out/all "${profiles[@]}" || exit 1
    # shellcheck disable=SC2086  # parsers are words
    llvm-cov show "${objects[@]}" -instr-profile=$out/all $parsers >build/cov/lines.txt || exit 1
    # shellcheck disable=SC2086
    llvm-cov export -summary-only "${objects[@]}" -instr-profile=$out/all $parsers >build/cov/summary.json || exit 1
    python3 - build/cov/summary.json $least <<'P'
import json, os, sys
data, least = json.load(open(sys.argv[1]))["data"][0], float(sys.argv[2])
for f in data["files"]:
    lines = f["summary"]["lines"]
    print("%-28s %5d of %5d lines %6.1f %%" % (os.path.relpath(f["filename"]), lines["covered"], lines["count"], lines["percent"]))
total = data["totals"]["lines"]["percent"]
print("all parsers, by the kept inputs alone: %.1f %% of their lines; each line in build/cov/lines.txt" % total)
if total < least:
    sys.exit("fuzz: FAILED: less than %g %%" % least)
P
}

mkdir -p build/fuzz build/cov
if [ "$what" = coverage ]; then
    coverage
else
    fuzz
fi
