#!/bin/bash
# clang-tidy on one file, unless it passed before as it is now.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/tidy.sh BUILD STAMPS FILE
set -uo pipefail
build=$1 stamps=$2 file=$3
stamp=$stamps/$(echo "$file" | tr / _)
hash=$(sha256sum "$file")
[ "$(cat "$stamp" 2>/dev/null)" = "$hash" ] && exit 0
# A file that no target compiles in this configuration has no command to look at it with.
grep -qF "$PWD/$file" "$build/compile_commands.json" || exit 0
output=$(.venv/bin/clang-tidy -p "$build" --quiet "$file" 2>/dev/null)
status=$?
if [ $status -ne 0 ] || grep -q 'warning:\|error:' <<<"$output"; then
  echo "$output"
  exit 1
fi
echo "$hash" >"$stamp"
