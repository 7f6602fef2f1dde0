#!/bin/bash
# Client and worker on AddressSanitizer with UBSan, and on ThreadSanitizer: native tests and C++ programs.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/sanitize.sh JOBS [RESULTS]
# The software GPU stands for a vendor's driver here, so it is the plain build's.
set -euo pipefail
cd "$(dirname "$0")/.."

jobs=$1 results=${2:-build/test-results} bin=.venv/bin
parts="base;wire;transport;link;generated;tables;client;shim;worker;replay;nulldriver;fuzz;programs"
mkdir -p "$results"
results=$(cd "$results" && pwd)

export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:use_sigaltstack=0
# What a sanitizer reads and writes lies outside of what workers see.
export OUTBOARD_ISOLATION=off
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# The software GPU stands for a closed driver: its own accesses are none of our races.
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:ignore_noninstrumented_modules=1:suppressions=$PWD/tests/tsan.supp

for kind in address thread; do
  folder=build-asan
  [ $kind = thread ] && folder=build-tsan
  if [ ! -f $folder/build.ninja ]; then
    echo "sanitize: configuring $folder"
    launcher=()
    command -v ccache >/dev/null &&
      launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    $bin/cmake -S . -B $folder -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/$bin/ninja" "${launcher[@]}" \
      -DOUTBOARD_SANITIZE=$kind -DOUTBOARD_ONLY="$parts" >$folder.configure.log 2>&1 ||
      { cat $folder.configure.log >&2; exit 1; }
    rm -f $folder.configure.log
  fi
  echo "sanitize: compiling in $folder"
  $bin/ninja -C $folder -j "$jobs" --quiet
  mkdir -p $folder/lib
  ln -sfn "$PWD/build/lib/softgpu" $folder/lib/softgpu
  echo "sanitize: native tests on $kind sanitizer"
  $bin/ctest --test-dir $folder --output-on-failure -j "$jobs" -LE fuzz --no-tests=error \
    --output-junit "$results/ctest-$kind.xml"
  echo "sanitize: programs on $kind sanitizer"
  OUTBOARD_NATIVE_DIR=$PWD/$folder OUTBOARD_REFERENCE_DIR=$PWD/build $bin/python -m pytest tests/integration -q -m sanitize \
    -p no:cacheprovider --junitxml="$results/pytest-$kind.xml"
done
