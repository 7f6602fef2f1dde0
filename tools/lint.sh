#!/bin/bash
# The gates on style, types and layers: Python, C++, shell, and the generator's checks.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/lint.sh BUILD JOBS
set -uo pipefail
cd "$(dirname "$0")/.."

build=$1 jobs=$2 bin=.venv/bin
failures=()

# gate NAME COMMAND...: runs it, shows its output only if it fails.
gate() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    printf 'lint: %-22s ok\n' "$name"
  else
    printf 'lint: %-22s FAILED\n%s\n' "$name" "$output"
    failures+=("$name")
  fi
}

sources() { git ls-files -- "$@"; }

# Every file of ours says its licence near its top.
licence_lines() {
  local bad
  bad=$(sources '*.py' '*.cpp' '*.hpp' '*.cu' '*.sh' '*.mako' 'CMakeLists.txt' '*/CMakeLists.txt' |
    xargs -r grep -L -m1 'SPDX-License-Identifier: Apache-2.0')
  [ -z "$bad" ] || { echo "no SPDX line in:"; echo "$bad"; return 1; }
}

# The sizes of the house: files by lines, for what people write.
file_sizes() {
  local bad
  bad=$({
    sources '*.cpp' '*.hpp' '*.cu' | xargs -r wc -l | awk '$2 != "total" && $1 > 800'
    sources '*.py' | xargs -r wc -l | awk '$2 != "total" && $1 > 600'
  })
  [ -z "$bad" ] || { echo "longer than 800 lines of C++ or 600 of Python; split by noun:"; echo "$bad"; return 1; }
}

# Names the files that are not as clang-format writes them.
format_cxx() {
  local bad
  bad=$(sources '*.cpp' '*.hpp' '*.cu' | xargs -r $bin/clang-format --dry-run 2>&1 |
    sed -n 's/:[0-9]*:[0-9]*: warning:.*//p' | sort -u)
  [ -z "$bad" ] || { echo "make format would change:"; echo "$bad"; return 1; }
}

# clang-tidy on hand-written code. A file is looked at again only when it, a header or the checks changed.
tidy() {
  local stamps=$build/tidy newest
  mkdir -p "$stamps"
  newest=$stamps/headers
  local hash
  hash=$({ sources 'native/*.hpp' .clang-tidy packaging/constraints.txt | xargs sha256sum; } | sha256sum)
  [ "$(cat "$newest" 2>/dev/null)" = "$hash" ] || { rm -rf "$stamps"; mkdir -p "$stamps"; echo "$hash" >"$newest"; }
  sources 'native/*.cpp' ':!native/*/tests/*' ':!native/*/*/tests/*' ':!native/bench/*' |
    xargs -r -P "$jobs" -n 1 tools/tidy.sh "$build" "$stamps"
}

gate "ruff" $bin/ruff check .
gate "ruff format" $bin/ruff format --check .
gate "mypy --strict" $bin/mypy
gate "mypy on tests" bash -c "$bin/mypy tests/integration/*.py tests/machines/*.py bench/*.py tools/*.py"
gate "import layers" $bin/lint-imports
gate "clang-format" format_cxx
gate "licence lines" licence_lines
gate "file sizes" file_sizes
gate "shell syntax" bash -c "git ls-files '*.sh' .ci/run | xargs -r -n 1 bash -n"
gate "codegen verify" $bin/python -m codegen verify
gate "clang-tidy" tidy

if [ ${#failures[@]} -gt 0 ]; then
  echo "lint: failed: ${failures[*]} (make format repairs what is mere form)" >&2
  exit 1
fi
