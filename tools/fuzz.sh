#!/bin/bash
# Hostile bytes, bounded: every position of a recorded conversation, and seeded samples against workers.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/fuzz.sh BUILD [RESULTS]
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1 results=${2:-build/test-results} bin=.venv/bin
mkdir -p "$results"
results=$(cd "$results" && pwd)
echo "fuzz: every position of a recorded conversation"
$bin/ctest --test-dir "$build" -L fuzz --output-on-failure --no-tests=error \
  --output-junit "$results/ctest-fuzz.xml"
echo "fuzz: samples against whole workers"
$bin/python -m pytest tests/integration -q -m fuzz -p no:cacheprovider \
  --junitxml="$results/pytest-fuzz.xml"
