#!/usr/bin/env bash
# run.sh SECONDS [TARGET...]: runs each fuzz target for that long, from the committed seeds and what was found before.
# Without a nightly toolchain or cargo-fuzz it says so and succeeds; a finding fails.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec </dev/null

seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(frame recovery slots engine snapshot)

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

cargo +nightly fuzz build
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "regressions/$target"
    echo "== fuzzing $target for $seconds s"
    # No single allocation beyond what files of this size excuse, and no input that takes 20 s.
    cargo +nightly fuzz run "$target" "corpus/$target" "seeds/$target" "regressions/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=8 \
        -max_len=4096 -len_control=0 -print_final_stats=1
done
