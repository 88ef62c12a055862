#!/bin/bash
# lint.sh - looks at every source without changing it, and ends with what failed. JOBS=<at once>. Steps can be named:
# lint.sh format words docs shell python clang cppcheck tidy
set -u
cd "$(dirname "$0")/.." || exit 1

jobs=${JOBS:-$(nproc)}
failed=

# Works without git, in an unpacked archive too.
sources() { # find's tests
    find common fanout feed-api ranker tools tests -type f \( "$@" \) | sort
}
mapfile -t c_sources < <(sources -name '*.c')
mapfile -t c_all < <(sources -name '*.[ch]')
mapfile -t scripts < <(sources -name '*.sh'; echo .ci/run)
mapfile -t pythons < <(sources -name '*.py')
mapfile -t with_options < <(sources -name '*config.c' -o -path 'tools/*.c')
mapfile -t other_scripts < <(sources -name '*.sh' ! -name lint.sh)

# The checks of clang-tidy that find faults, not taste. .clang-format and the reviewers mind the looks.
tidy_checks='-*,bugprone-*,cert-flp30-c,misc-unused-parameters'
tidy_checks+=',performance-*,readability-misleading-indentation,readability-redundant-declaration'
tidy_checks+=',-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-narrowing-conversions'
tidy_checks+=',-bugprone-implicit-widening-of-multiplication-result,-bugprone-assignment-in-if-condition'
tidy_checks+=',-bugprone-signal-handler,-performance-no-int-to-ptr,-bugprone-sizeof-expression'
tidy_checks+=',-bugprone-branch-clone,-bugprone-macro-parentheses,-bugprone-suspicious-include,-bugprone-not-null-terminated-result'
tidy_checks+=',-bugprone-suspicious-string-compare,-bugprone-misplaced-widening-cast'

step_format() {
    clang-format --dry-run -Werror "${c_all[@]}"
}

# Nothing is left for later in the sources, and no line is longer than what fits beside another.
step_words() {
    ! grep -nE '\b(TODO|FIXME|XXX|HACK)\b' "${c_all[@]}" "${pythons[@]}" "${other_scripts[@]}" Makefile
}

# What the documents name in backticks is there: functions and tests `name()`, files, options `--name`, make's targets.
step_docs() {
    local docs="README.md ARCHITECTURE.md CONTRIBUTING.md" name bad=0
    # shellcheck disable=SC2086  # docs are words
    named() { grep -ohE "\`$1\`" $docs | tr -d '\`' | sort -u; }
    for name in $(named '[A-Za-z_0-9]+\(\)'); do
        grep -qwF "${name%()}" "${c_all[@]}" || { echo "$name is named in the documents and nowhere else"; bad=1; }
    done
    for name in $(named '[A-Za-z0-9_.-]*/[A-Za-z0-9_./-]+\.(c|h|py|sh|md|yaml|txt|conf)'); do
        [ -e "${name#/}" ] || { echo "$name is named in the documents and not there"; bad=1; }
    done
    for name in $(named '--[a-z-]+'); do
        grep -qF -e "\"${name#--}\"" -e "$name" "${with_options[@]}" ||
            { echo "$name is named in the documents and no option"; bad=1; }
    done
    return $bad
}

step_shell() {
    # SC2015: A && B || fail is meant as it reads, where B failing is a failure too.
    shellcheck -e SC2015 "${scripts[@]}"
}

step_python() {
    local f
    for f in "${pythons[@]}"; do
        python3 -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1])' "$f" || return 1
    done
}

step_clang() {
    make --no-print-directory -j"$jobs" V=clang build tests
}

# Left out: what it can't parse (our variadic log macro), or gets wrong (initialisers that name some members; a NULL
# that ends variadic arguments is a pointer here), or knows no better of (readdir is safe in glibc).
step_cppcheck() {
    cppcheck --quiet -j "$jobs" --std=c11 -I. --enable=warning,performance,portability --inline-suppr \
        --error-exitcode=1 --library=posix -D__linux__ --suppress=missingIncludeSystem \
        --suppress=normalCheckLevelMaxBranches --suppress=internalAstError --suppress=uninitvar \
        --suppress=varFuncNullUB --suppress=readdirCalled \
        --suppress=comparePointers:feed-api/openapi.c "--suppress=arrayIndexOutOfBoundsCond:tests/*" --include=/usr/include/x86_64-linux-gnu/sys/queue.h \
        --template='{file}:{line}: {severity}: {message} [{id}]' "${c_sources[@]}"
}

step_tidy() {
    local flags
    flags="-std=c11 -D_GNU_SOURCE -I. $(make --no-print-directory show-includes)"
    # shellcheck disable=SC2016  # the inner shell expands
    printf '%s\n' "${c_sources[@]}" | FLAGS=$flags CHECKS=$tidy_checks xargs -P "$jobs" -n 4 \
        sh -c 'clang-tidy --quiet --checks="$CHECKS" --warnings-as-errors="*" "$@" -- $FLAGS 2>/dev/null' sh
}

steps=${*:-format words docs shell python clang cppcheck tidy}
for step in $steps; do
    began=$SECONDS
    if out=$("step_$step" 2>&1); then
        printf 'ok    lint %-10s %4d s\n' "$step" $((SECONDS - began))
    else
        printf 'FAIL  lint %-10s %4d s\n' "$step" $((SECONDS - began))
        printf '%s\n' "$out" | tail -n 80
        failed+=" $step"
    fi
done
if [ -n "$failed" ]; then
    echo "lint: FAILED:$failed"
    exit 1
fi
echo "lint: passed"
