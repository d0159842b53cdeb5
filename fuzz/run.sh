#!/usr/bin/env bash
# Runs one target for some seconds, then keeps the smallest inputs that reach all that was reached.
#
# Needs a C++ compiler. libFuzzer needs LLVM's coverage counters. A stable compiler writes them if the pass is named;
# these are the flags of `cargo fuzz --sanitizer none`. Dependencies are instrumented as well; build scripts aren't (--target).
# Other flags for libFuzzer: fuzz/run.sh json 60 -rss_limit_mb=4096
set -euo pipefail
cd "$(dirname "$0")"
target=$1 seconds=$2
shift 2

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --locked --release --target "$host" --target-dir target --bin "$target"
fuzzer=$PWD/target/$host/release/$target

# What is found goes to work/, inputs that break a property to findings/: neither is kept in git.
mkdir -p "work/$target" findings
log=work/$target.log
echo "fuzzing $target for $seconds seconds; progress in fuzz/$log"
status=0
"$fuzzer" "work/$target" "corpus/$target" -max_total_time="$seconds" -max_len=2048 -timeout=30 -print_final_stats=1 \
	-artifact_prefix="findings/$target-" "$@" >"$log" 2>&1 || status=$?
if [ "$status" != 0 ]; then
	tail -60 "$log"
	echo "$target FAILED after $(grep -c . "$log") lines of log: see fuzz/$log and fuzz/findings/; nothing was kept"
	exit "$status"
fi
grep -E '^Done|stat::number_of_executed_units' "$log"

# Inputs with names of their own (seeds, findings that were mended) stay; libFuzzer names its own by their SHA-1.
merged=work/$target.merged
rm -rf "$merged"
mkdir -p "$merged"
find "corpus/$target" -type f -regextype posix-extended -not -regex '.*/[0-9a-f]{40}' -exec cp {} "$merged" \;
"$fuzzer" -set_cover_merge=1 -use_counters=0 -max_len=2048 -timeout=30 "$merged" "corpus/$target" "work/$target" >>"$log" 2>&1
rm -rf "corpus/$target" "work/$target"
mv "$merged" "corpus/$target"
echo "$target: clean; $(find "corpus/$target" -type f | wc -l) inputs kept, $(du -sb "corpus/$target" | cut -f1) bytes"
