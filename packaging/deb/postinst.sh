#!/bin/sh
# After installation: the daemon's account, and units that systemd knows.
# SPDX-License-Identifier: Apache-2.0
set -e
if [ "$1" = configure ] || [ "$1" = 1 ] || [ "$1" = 2 ]; then
  if command -v systemd-sysusers >/dev/null; then systemd-sysusers outboard.conf; fi
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # Running services take their sessions over: programs notice nothing of an upgrade.
    systemctl try-restart 'outboard@*.service' || true
  fi
fi
