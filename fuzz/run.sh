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

said=$(mktemp)
trap 'rm -f "$said"' EXIT
cargo +nightly fuzz build
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "regressions/$target"
    echo "== fuzzing $target for $seconds s"
    # No single allocation beyond what files of this size excuse, and no input that takes 20 s.
    cargo +nightly fuzz run "$target" "corpus/$target" "seeds/$target" "regressions/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=8 \
        -max_len=4096 -len_control=0 -print_final_stats=1 2>&1 | tee "$said"
    if ! grep -qE '^stat::number_of_executed_units: +[1-9]' "$said"; then
        echo "$target ran no input" >&2
        exit 1
    fi
done
