#!/usr/bin/env bash
# run.sh SECONDS [TARGET...]: runs each fuzz target for that long, from the committed seeds and what was found before.
# Without a nightly toolchain or cargo-fuzz it says so and succeeds; a finding fails.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec </dev/null

seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for source in fuzz_targets/*.rs; do
        targets+=("$(basename "$source" .rs)")
    done
fi

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "NOT FUZZED: no nightly toolchain ('rustup toolchain install nightly')"
    exit 0
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    if ! cargo +nightly install cargo-fuzz --locked; then
        echo "NOT FUZZED: cargo-fuzz is not there and cannot be installed"
        exit 0
    fi
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# fuzz_one TARGET: its output goes to a file, as another target runs beside it.
fuzz_one() {
    # No single allocation beyond what files of this size excuse, and no input that takes 20 s.
    cargo +nightly fuzz run "$1" "corpus/$1" "seeds/$1" "regressions/$1" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=8 \
        -max_len=4096 -len_control=0 -print_final_stats=1 >"$logs/$1" 2>&1
}

cargo +nightly fuzz build
failed=()
# Two side by side: a target runs on one core.
for ((first = 0; first < ${#targets[@]}; first += 2)); do
    pair=("${targets[@]:first:2}")
    running=()
    for target in "${pair[@]}"; do
        mkdir -p "corpus/$target" "regressions/$target"
        echo "== fuzzing $target for $seconds s"
        fuzz_one "$target" &
        running+=($!)
    done
    for number in "${!pair[@]}"; do
        target=${pair[number]}
        outcome=0
        wait "${running[number]}" || outcome=$?
        echo "== output of $target"
        cat "$logs/$target"
        if [ "$outcome" -ne 0 ]; then
            failed+=("$target")
        elif ! grep -qE '^stat::number_of_executed_units: +[1-9]' "$logs/$target"; then
            echo "$target ran no input" >&2
            failed+=("$target")
        fi
    done
done
if [ ${#failed[@]} -ne 0 ]; then
    echo "FAILED: ${failed[*]}" >&2
    exit 1
fi
