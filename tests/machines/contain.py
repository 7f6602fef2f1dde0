"""A container of a few lines, for machines on which no runtime runs: what CDI says, done by hand.

SPDX-License-Identifier: Apache-2.0

usage: unshare --mount python3 contain.py SPECIFICATION ROOT COMMAND…
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def main() -> None:
    specification, root, *command = sys.argv[1:]
    with open(specification, encoding="utf-8") as file:
        text = "".join(line for line in file if not line.startswith("#"))
    (device,) = json.loads(text)["devices"]
    edits = device["containerEdits"]
    for mount in edits["mounts"]:
        source, target = mount["hostPath"], root + mount["containerPath"]
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "ab").close()
        subprocess.run(["mount", "--bind", source, target], check=True)
    os.chroot(root)
    os.chdir("/")
    os.execve(command[0], command, dict(setting.split("=", 1) for setting in edits["env"]))


if __name__ == "__main__":
    main()
