#!/bin/bash
# Boots machines with a real systemd, installs the package there and uses the client service.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/machines.sh --setup | --boots N | [PYTEST OPTIONS]
# --boots: so many power cuts and boots in a row, and nothing else.
# Needs root, systemd-nspawn and overlay mounts, and the shells and servers that the machines run.
# Where they are not to be had it says so and passes. Only --setup installs what is missing: among it
# is an ssh server, which is no test's to put on somebody's machine.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  printf '%s\n' "machines: NOT RUN: $*" "machines: what systemd does with the service is untested here" >&2
  exit 0
}

[ "$(id -u)" = 0 ] || skip "not root"
missing=()
command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
[ -x /usr/sbin/sshd ] || missing+=(openssh-server)
for name in zsh fish cron sudo; do command -v $name >/dev/null || missing+=("$name"); done
if [ "${1:-}" = --setup ]; then
  [ ${#missing[@]} -gt 0 ] || exit 0
  command -v apt-get >/dev/null || skip "these are missing: ${missing[*]}"
  echo "machines: installing OS packages: ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } ||
    skip "these cannot be installed: ${missing[*]}"
  exit 0
fi
[ ${#missing[@]} -eq 0 ] ||
  skip "these packages are missing: ${missing[*]} (tools/machines.sh --setup installs them)"

# Overlays and namespaces are what a container may lack although it has everything else.
probe=$(mktemp -d -p /dev/shm)
mkdir "$probe/upper" "$probe/work" "$probe/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$probe/upper,workdir=$probe/work" "$probe/root" \
  2>/dev/null || { rm -rf "$probe"; skip "overlays cannot be mounted"; }
works=yes
systemd-nspawn -q --register=no --keep-unit --private-network -D "$probe/root" true 2>/dev/null || works=no
umount "$probe/root"
rm -rf "$probe"
[ $works = yes ] || skip "systemd-nspawn cannot start a machine"

if [ "${1:-}" = --boots ]; then
  export OUTBOARD_TEST_BOOTS=${2:?usage: tools/machines.sh --boots N}
  shift 2
  set -- -k test_boots_in_a_row -s "$@"
fi
exec .venv/bin/python -m pytest -q -p no:cacheprovider tests/machines "$@"
