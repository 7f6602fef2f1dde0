#!/bin/sh
# podman on a machine under test, with what a machine that is itself a container takes away from it.
# SPDX-License-Identifier: Apache-2.0
#
# usage: podman.sh ARGUMENTS of podman
# A guest of systemd-nspawn may lack the right to raise limits, the overlay's storage, and cgroups of
# its own; where the host has both generations of cgroups crun wants to see one of them.
if systemd-detect-virt --quiet --container; then
  conf=/run/podman-test
  mkdir -p $conf
  printf '%s\n' '[containers]' 'cgroups = "disabled"' \
    'default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]' \
    '[engine]' 'runtime = "crun"' 'cgroup_manager = "cgroupfs"' 'events_logger = "file"' \
    >$conf/containers.conf
  printf '%s\n' '[storage]' 'driver = "vfs"' "graphroot = \"$conf/graph\"" "runroot = \"$conf/run\"" \
    >$conf/storage.conf
  export CONTAINERS_CONF=$conf/containers.conf CONTAINERS_STORAGE_CONF=$conf/storage.conf
  [ ! -d /sys/fs/cgroup/unified ] ||
    exec unshare --mount sh -c 'mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; exec podman "$@"' sh "$@"
fi
exec podman "$@"
