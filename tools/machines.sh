#!/bin/bash
# Boots machines with a real systemd, installs the package there and uses the client service.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/machines.sh [PYTEST OPTIONS]
# Needs root, systemd-nspawn and overlay mounts. Where they are not to be had it says so and passes.
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
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || skip "these are missing: ${missing[*]}"
  echo "machines: installing OS packages: ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } ||
    skip "these cannot be installed: ${missing[*]}"
fi

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

exec .venv/bin/python -m pytest -q -p no:cacheprovider tests/machines "$@"
