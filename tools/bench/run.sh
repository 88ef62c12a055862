#!/bin/bash
# run.sh - the figures of the main job, each from a real run on this machine, with the command that repeats it.
#
# Starts a stack of its own in a directory that goes afterwards, loads the demo data, measures, stops. Prints a table and writes
# the same as JSON to build/bench.json. Nothing else should run on the machine meanwhile. Rounds: FEEDMILL_BENCH_ROUNDS (5), seconds each:
# FEEDMILL_BENCH_SECONDS (5).
set -eu
cd "$(dirname "$0")/../.."
rounds=${FEEDMILL_BENCH_ROUNDS:-5} seconds=${FEEDMILL_BENCH_SECONDS:-5} port=${FEEDMILL_BENCH_PORT:-18480}
dir=$(mktemp -d "${TMPDIR:-/tmp}/fmb.XXXXXX") stack=
url=http://127.0.0.1:$port
rows=$dir/rows

end_stack() {
    [ -n "$stack" ] || return 0
    kill -TERM "$stack" 2>/dev/null || true
    wait "$stack" 2>/dev/null || true
    stack=
}
trap 'end_stack; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

# Starts the stack and waits until it says that it is ready; prints how long that took, in seconds.
begin_stack() {
    : >"$dir/stack.out"
    build/release/bin/stack --port "$port" --data "$dir/run" --demo=no >"$dir/stack.out" 2>&1 &
    stack=$!
    for _ in $(seq 600); do
        grep -q ' ready on ' "$dir/stack.out" && break
        kill -0 "$stack" 2>/dev/null || { cat "$dir/stack.out" >&2; exit 1; }
        sleep 0.1
    done
    ready_s=$(sed -n 's/.* ready on .* after \([0-9.]*\) s.*/\1/p' "$dir/stack.out")
}

row() { # figure unit command values...
    local figure=$1 unit=$2 command=$3
    shift 3
    printf '%s\n' "$@" | sort -g | awk -v f="$figure" -v u="$unit" -v c="$command" '
        { v[NR] = $1 }
        END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
              printf "%s\t%s\t%.6g\t%.6g\t%.6g\t%d\t%s\n", f, u, v[1], m, v[NR], NR, c }' >>"$rows"
    tail -n 1 "$rows" | awk -F'\t' '{ printf "%-52s %10s %-10s (min %s, max %s, %s runs)\n", $1, $4, $2, $3, $5, $6 }'
}

load() { # script arguments...
    wrk -t2 -c32 -d"${seconds}s" --latency -s "$@"
}

rate() { awk '/^Requests\/sec/ { print $2 }' "$1"; }
percentile() { # file 50|99, in ms
    awk -v p="$2%" '$1 == p { v = $2; if (v ~ /us$/) v /= 1000; else if (v ~ /ms$/) v += 0; else v *= 1000; print v + 0 }' "$1"
}

check() { # file: no answer may be an error
    ! grep -E 'Non-2xx|Socket errors' "$1" >&2
}

page_s() { curl -s -o /dev/null -w '%{time_total}\n' -H "Authorization: Bearer $key" "$url/v1/users/$1/feed"; }

begin_stack
row "ready, first start of a data directory" s "build/release/bin/stack" "$ready_s"
key=$(cat "$dir/run/admin.key")
python3 tools/demo_load.py --url "$url" --key-file "$dir/run/admin.key" --reader-file "$dir/reader" >"$dir/demo.out"
row "demo load through POST /v1/items/bulk" items/s "tools/demo_load.py" \
    "$(sed -n 's/.* \([0-9]*\) a second$/\1/p' "$dir/demo.out" | tail -n 1)"
end_stack
begin_stack
row "ready, later starts" s "build/release/bin/stack" "$ready_s"
row "first page after a cold start (rebuild)" ms "curl .../feed" \
    "$(page_s "$(cat "$dir/reader")" | awk '{ print $1 * 1000 }')"

curl -s -H "Authorization: Bearer $key" "$url/v1/publishers?limit=100" >"$dir/publishers.json"
python3 - "$dir/publishers.json" >"$dir/readers" <<'P'
import json, sys
for p in json.load(open(sys.argv[1]))["publishers"]:
    print("user-of-" + p["publisher"][:55])
P
while read -r reader; do page_s "$reader" >/dev/null; done <"$dir/readers"

redis=$(find "$dir/run" -name '*.sock' -path '*redis*' | head -n 1)
full=$(redis-cli -s "$redis" --scan --pattern 'tl:*' | while read -r k; do
    n=$(redis-cli -s "$redis" zcard "$k")
    [ "$n" -ge 121 ] || continue
    t=$(redis-cli -s "$redis" memory usage "$k")
    p=$(redis-cli -s "$redis" memory usage "pf${k#tl}")
    awk -v n="$n" -v b="$((t + p))" 'BEGIN { print b / (n - 1) }'
done)
# shellcheck disable=SC2086  # one value a line
[ -n "$full" ] && row "a full timeline, with all that belongs to it" B/entry "redis-cli memory usage tl:... pf:..." $full

health=() pages=() p50=() p99=() ids=() publishes=() w50=() w99=()
for _ in $(seq "$rounds"); do
    wrk -t2 -c32 -d"${seconds}s" "$url/healthz" >"$dir/h"
    load tools/bench/pages.lua "$url" -- "$dir/readers" "$key" "limit=20" >"$dir/p"
    load tools/bench/pages.lua "$url" -- "$dir/readers" "$key" "limit=20&fields=ids" >"$dir/i"
    load tools/bench/publish.lua "$url" -- "$key" >"$dir/w"
    check "$dir/h" && check "$dir/p" && check "$dir/i" && check "$dir/w"
    health+=("$(rate "$dir/h")") pages+=("$(rate "$dir/p")") ids+=("$(rate "$dir/i")")
    p50+=("$(percentile "$dir/p" 50)") p99+=("$(percentile "$dir/p" 99)")
    publishes+=("$(rate "$dir/w")") w50+=("$(percentile "$dir/w" 50)") w99+=("$(percentile "$dir/w" 99)")
done
wrk_pages="wrk -t2 -c32 -d${seconds}s -s tools/bench/pages.lua"
wrk_publish="wrk -t2 -c32 -d${seconds}s -s tools/bench/publish.lua"
row "GET /healthz (the HTTP server alone)" req/s "wrk -t2 -c32 -d${seconds}s" "${health[@]}"
row "pages of 20 items, 32 connections" pages/s "$wrk_pages" "${pages[@]}"
row "pages of 20 items, median" ms "$wrk_pages" "${p50[@]}"
row "pages of 20 items, 99th percentile" ms "$wrk_pages" "${p99[@]}"
row "pages of 20 ids (fields=ids), 32 connections" pages/s "$wrk_pages" "${ids[@]}"
row "durable publishes of 1 KB, 32 connections" items/s "$wrk_publish" "${publishes[@]}"
row "durable publishes, median" ms "$wrk_publish" "${w50[@]}"
row "durable publishes, 99th percentile" ms "$wrk_publish" "${w99[@]}"

mkdir -p build
{
    echo "["
    awk -F'\t' '{
        printf "%s  {\"figure\": \"%s\", \"unit\": \"%s\", \"min\": %s, \"median\": %s, \"max\": %s, ", sep, $1, $2, $3, $4, $5
        printf "\"runs\": %s, \"command\": \"%s\"}", $6, $7
        sep = ",\n"
    }' "$rows"
    printf '\n]\n'
} >build/bench.json
echo "also in build/bench.json"
