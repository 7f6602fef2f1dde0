#!/bin/bash
# Installs what building, demonstrating or testing needs: OS packages, the virtual environment, nvcc.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/setup.sh build|test
# Does nothing, in a few milliseconds, when everything is there. Prints one line per step it takes.
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:?usage: tools/setup.sh build|test}
venv=.venv
venv_cuda12=.venv-cuda12

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }

# --- OS packages: asked for by the file that is needed, so that other ways to have them count -------
have_header() { echo "#include <$1>" | g++ -x c++ -fsyntax-only - 2>/dev/null; }
have_static() { [ "$(g++ -print-file-name="$1")" != "$1" ]; }

missing_packages() {
  python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
  have_header zstd.h && have_static libzstd.a || echo libzstd-dev
  have_header openssl/evp.h && have_static libcrypto.a || echo libssl-dev
  have_header doctest/doctest.h || echo doctest-dev
  have_header nlohmann/json.hpp || echo nlohmann-json3-dev
  command -v git >/dev/null || echo git
  # The ledger's tests start a server of their own; the package's cluster stays as it is.
  [ "$purpose" = build ] || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 ||
    command -v postgres >/dev/null || echo postgresql
}

install_packages() {
  command -v g++ >/dev/null || fail "g++ is missing. Type: sudo apt-get install g++"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed as python3; this is $(python3 --version 2>&1)"
  local packages
  packages=$(missing_packages | tr '\n' ' ')
  [ -z "$packages" ] && return
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || as_root=(none)
    [ "${as_root[0]:-}" = none ] || as_root=(sudo -n)
  fi
  if ! command -v apt-get >/dev/null || [ "${as_root[0]:-}" = none ]; then
    fail "these Debian packages (or what provides the same) are missing: $packages" \
      "Type: sudo apt-get install $packages"
  fi
  say "installing OS packages: $packages"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
    $packages >/dev/null
}

# --- Python environments: rebuilt when what is asked for changes ------------------------------------
wanted_extras() {
  local extras=build,server
  [ "$purpose" = test ] && extras=build,lint,test,server
  # A toolkit of the machine is used where there is one: the compiler's wheels are 100 MB.
  /usr/local/cuda/bin/nvcc --version >/dev/null 2>&1 || nvcc --version >/dev/null 2>&1 ||
    extras=$extras,nvcc
  echo "$extras"
}

# environment DIRECTORY EXTRAS REQUIREMENT...: makes it, unless its stamp says that it is up to date.
environment() {
  local directory=$1 extras=$2 stamp wanted
  shift 2
  stamp=$directory/installed
  wanted=$(cat pyproject.toml packaging/constraints.txt | sha256sum | cut -c1-16)
  # What was installed for testing serves for building too.
  if [ -f "$stamp" ] && [ "$(head -1 "$stamp")" = "$wanted" ] &&
    { grep -qx "$extras" "$stamp" || grep -q ',lint,test' "$stamp"; }; then
    return
  fi
  [ -x "$directory/bin/python" ] || python3 -m venv "$directory"
  say "installing Python packages into $directory ($extras)"
  local log=$directory/install.log
  if ! "$directory/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
    -c packaging/constraints.txt "$@" >"$log" 2>&1; then
    tail -20 "$log" >&2
    fail "pip failed; all of its output is in $log"
  fi
  { echo "$wanted"; echo "$extras"; } >"$stamp"
}

install_packages
extras=$(wanted_extras)
environment "$venv" "$extras" -e ".[$extras]"
if [ "$purpose" = test ]; then
  environment "$venv_cuda12" test-cuda12 numpy cupy-cuda12x nvidia-cuda-nvrtc-cu12 \
    nvidia-cuda-runtime-cu12
  # CUDA 11's runtime and CUDA 12's want the same folder, so this one gets a folder of its own.
  if [ ! -e "$venv_cuda12/cuda11/nvidia" ]; then
    "$venv_cuda12/bin/python" -m pip install -q --disable-pip-version-check --no-deps \
      -c packaging/constraints.txt --target "$venv_cuda12/cuda11" nvidia-cuda-runtime-cu11 \
      >>"$venv_cuda12/install.log" 2>&1 || fail "pip failed; see $venv_cuda12/install.log"
    touch "$venv_cuda12/installed"
  fi
fi
