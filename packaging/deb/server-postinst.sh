#!/bin/sh
# After installation: systemd knows the units; what ran, runs the new release. No program notices.
# SPDX-License-Identifier: Apache-2.0
set -e
if [ "$1" = configure ] || [ "$1" = 1 ] || [ "$1" = 2 ]; then
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart outboard-controller.service outboard-agent.service || true
  fi
fi
