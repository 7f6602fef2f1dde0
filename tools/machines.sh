#!/bin/bash
# Boots machines with a real systemd, installs the package there and uses the client service.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/machines.sh --setup | --boots N | --real-times | --vm | [PYTEST OPTIONS]
# --boots: so many power cuts and boots in a row, and nothing else.
# --real-times: the stories that hang on the lease, with one of three minutes, as users get, in place
# of a twentieth of that.
# --vm: the client machine has a kernel of its own, in QEMU; the first time it is made from Debian's
# archive. That needs qemu-system-x86 and mmdebstrap.
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
for name in zsh fish cron sudo podman crun; do command -v $name >/dev/null || missing+=("$name"); done
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
if [ "${1:-}" = --real-times ]; then
  export OUTBOARD_TEST_TIMES=real
  shift
  set -- -k "cable or without_power" "$@"
fi
if [ "${1:-}" = --vm ]; then
  shift
  for name in qemu-system-x86_64 mmdebstrap mke2fs; do
    command -v $name >/dev/null || skip "$name is missing (Debian: qemu-system-x86, mmdebstrap)"
  done
  export OUTBOARD_TEST_VM=$PWD/build/machine-qemu/debian.tar
  if [ ! -f "$OUTBOARD_TEST_VM" ]; then
    echo "machines: making a Debian with its cloud kernel in $OUTBOARD_TEST_VM"
    mkdir -p "${OUTBOARD_TEST_VM%/*}"
    mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
      --include=systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,polkitd,procps,iproute2,podman \
      --include=openssh-server,sudo,cron,zsh,fish,python3,linux-image-cloud-amd64,initramfs-tools,crun \
      bookworm "$OUTBOARD_TEST_VM.new.tar"
    mv "$OUTBOARD_TEST_VM.new.tar" "$OUTBOARD_TEST_VM"
  fi
  set -- -k test_two_machines "$@" --deselect tests/machines/test_two_machines_rules.py
fi
exec .venv/bin/python -m pytest -q -p no:cacheprovider tests/machines "$@"
