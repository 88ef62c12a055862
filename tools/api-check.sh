#!/bin/bash
# api-check.sh - asks a stack of its own what openapi.yaml says that can be asked, and more, and compares the answers with it.
#
# Requests and checks are schemathesis' (tools/schemathesis.txt; into .deps/ at first use). What it asks depends on SEED, how much on
# EXAMPLES, for each operation; SECONDS_MAX is its limit. ONLY=<operationId> asks one operation. What it found is printed with a curl
# command for each.
set -u
cd "$(dirname "$0")/.." || exit 1
seed=${SEED:-1} examples=${EXAMPLES:-5} seconds=${SECONDS_MAX:-90} only=${ONLY:-}
root=$PWD tool=$PWD/.deps/schemathesis dir=$(mktemp -d "${TMPDIR:-/tmp}/fmc.XXXXXX") stack=

say() { echo "api-check: $*"; }

# shellcheck disable=SC2317  # the trap calls it
finish() {
    if [ -n "$stack" ]; then
        kill -TERM "$stack" 2>/dev/null
        wait "$stack" 2>/dev/null
    fi
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

get_tool() {
    cmp -s tools/schemathesis.txt "$tool/installed" && return 0
    say "getting schemathesis into .deps"
    rm -rf "$tool"
    if ! { python3 -m venv "$tool" && "$tool/bin/pip" install --quiet --disable-pip-version-check --no-deps -r tools/schemathesis.txt; } >"$dir/pip" 2>&1; then
        tail -n 5 "$dir/pip"
        say "FAILED: schemathesis can't be installed: it takes python3-venv and the network"
        exit 1
    fi
    cp tools/schemathesis.txt "$tool/installed"
}

begin_stack() {
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    build/release/bin/stack --port "$port" --data "$dir/run" --demo=no >"$dir/stack.out" 2>&1 &
    stack=$!
    for _ in $(seq 1200); do
        grep -q ' ready on ' "$dir/stack.out" && return 0
        kill -0 "$stack" 2>/dev/null || break
        sleep 0.1
    done
    cat "$dir/stack.out"
    say "FAILED: the stack did not start"
    exit 1
}

ask() {
    (cd "$dir" && PYTHONPATH=$root/tools PYTHONDONTWRITEBYTECODE=1 "$tool/bin/schemathesis" --config-file "$root/tools/schemathesis.toml" \
        run "$root/openapi.yaml" --url "$url" -H "Authorization: Bearer $key" ${only:+--include-operation-id "$only"} \
        --seed "$seed" -n "$examples" --max-time "$seconds")
}

get_tool
begin_stack
key=$(cat "$dir/run/admin.key")
ask
status=$?
alive=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $key" "$url/v1/status")
[ "$alive" = 200 ] || { say "the stack answers /v1/status with $alive afterwards"; status=1; }
[ $status = 0 ] && say "passed: nothing contradicts openapi.yaml (SEED=$seed)" || say "FAILED (SEED=$seed)"
exit $status
