#!/bin/bash
# fuzz.sh [seconds] - builds each tests/fuzz/fuzz_*.c with clang's libFuzzer, ASan and UBSan, and runs each so long. What was found
# new goes to build/fuzz/corpus; the seeds in tests/fuzz/corpus stay as they are. A crash is kept as build/fuzz/crash-*.
set -u
cd "$(dirname "$0")/.." || exit 1
seconds=${1:-30}
failed=
for src in tests/fuzz/fuzz_*.c; do
    name=$(basename "$src" .c)
    short=${name#fuzz_}
    make --no-print-directory -j"$(nproc)" V=fuzz "build/fuzz/tests/fuzz/$name" || exit 1
    mkdir -p "build/fuzz/corpus/$short"
    if "build/fuzz/tests/fuzz/$name" -max_total_time="$seconds" -max_len=8192 -timeout=10 -print_final_stats=0 -verbosity=0 \
        -artifact_prefix=build/fuzz/crash-"$short"- "build/fuzz/corpus/$short" "tests/fuzz/corpus/$short" \
        >"build/fuzz/$short.log" 2>&1; then
        echo "ok    fuzz $short, $seconds s"
    else
        echo "FAIL  fuzz $short: see build/fuzz/$short.log and build/fuzz/crash-$short-*"
        tail -n 40 "build/fuzz/$short.log"
        failed+=" $short"
    fi
done
[ -z "$failed" ] || { echo "fuzz: FAILED:$failed"; exit 1; }
echo "fuzz: passed"
