#!/usr/bin/env bash
# Fuzzes one reader with libFuzzer: scripts/fuzz.sh READER RUNS. Inputs that reach new code are kept
# in build/fuzz/found/READER and run first the next time; a failing input is kept as
# READER.failed-crash-* (or -leak-, -oom-, -timeout-) beside them.
set -euo pipefail
cd "$(dirname "$0")/.."
reader=$1 runs=$2
kept=build/fuzz/found/$reader log=build/fuzz/found/$reader.log
mkdir -p "$kept"
export ATELIER_FUZZ_TARGET=$reader UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
begin=$(date +%s)
if ! build/fuzz/tests/fuzz/fuzz_readers -runs="$runs" -max_len=4096 -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$kept.failed-" \
    "$kept" "tests/fuzz/corpus/$reader" > "$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "$reader: a reader failed; the failing input is named above, the whole log is in $log" >&2
    exit 1
fi
echo "$reader: $runs inputs in $(($(date +%s) - begin)) s, none failed ($(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | cut -d' ' -f2) edges reached)"
