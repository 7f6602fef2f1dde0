#!/bin/bash
# Everything that has to pass, in the order in which it is cheapest to learn that something does not.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/test.sh BUILD JOBS
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1 jobs=$2 bin=.venv/bin
results=$build/test-results
started=$SECONDS

stage() { printf '\n== %s (after %d:%02d)\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

# Whatever stage fails, say how far the tests came: the last line counts them all.
summary() {
  $bin/python tools/summary.py "$results" || true
}
trap summary EXIT

rm -rf "$results"
mkdir -p "$results"
stage "build"
make build-all
stage "lint"
tools/lint.sh "$build" "$jobs"
stage "native tests"
$bin/ctest --test-dir "$build" --output-on-failure -j "$jobs" -LE fuzz --no-tests=error \
  --output-junit "$PWD/$results/ctest.xml"
stage "Python tests"
$bin/python -m pytest -q -m "not fuzz" --maxfail 20 --junitxml="$results/pytest.xml"
stage "sanitizers"
tools/sanitize.sh "$jobs" "$results"
stage "hostile bytes"
tools/fuzz.sh "$build" "$results"
stage "machines"
make package
tools/machines.sh --junitxml="$results/machines.xml"
stage "done"
