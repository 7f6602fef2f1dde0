#!/bin/sh
# Before removal: controller and agent end, and with the agent its workers. What they keep in
# /var/lib/outboard stays.
# SPDX-License-Identifier: Apache-2.0
set -e
if [ "$1" = remove ] || [ "$1" = 0 ]; then
  if [ -d /run/systemd/system ]; then
    systemctl disable --now outboard-controller.service outboard-agent.service || true
    # A stopped agent leaves its workers to their programs; these lose their files now.
    systemctl kill --kill-whom=all outboard-agent.service 2>/dev/null || true
  fi
fi
