#!/bin/sh
# Before removal: every service that was installed goes, with all that it wrote.
# SPDX-License-Identifier: Apache-2.0
set -e
if [ "$1" = remove ] || [ "$1" = 0 ]; then
  for folder in /etc/systemd/system/outboard@*.service.d; do
    [ -d "$folder" ] || continue
    name=${folder#/etc/systemd/system/outboard@}
    /usr/bin/outboard service uninstall --system --name "${name%.service.d}" || true
  done
fi
