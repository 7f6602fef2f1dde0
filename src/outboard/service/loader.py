"""The dynamic loader's cache: which libcuda.so.1 programs find, and whether it is a local driver's.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import subprocess

from outboard.errors import LocalDriver

_SONAME = "libcuda.so.1"
_LDCONFIG = "/sbin/ldconfig"


def refuse_local_driver(shim_folder: str) -> None:
    """Raise `LocalDriver` if programs of this machine find an NVIDIA driver of its own."""
    for path in cached(_SONAME):
        if os.path.realpath(os.path.dirname(path)) != os.path.realpath(shim_folder):
            raise LocalDriver(
                f"this machine has a driver of its own: {path}",
                "to put the pool's GPUs in its place all the same: --replace-local-driver;"
                " for single programs: outboard run -n 1 -- COMMAND",
            )


def cached(soname: str) -> list[str]:
    """The paths that the loader's cache has for a library, in its order."""
    try:
        done = subprocess.run(
            [_LDCONFIG, "-p"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return paths_in(done.stdout, soname)


def paths_in(listing: str, soname: str) -> list[str]:
    """The paths of a library in `ldconfig -p`: `libcuda.so.1 (libc6,x86-64) => /path`."""
    found = []
    for line in listing.splitlines():
        head, arrow, path = line.strip().partition(" => ")
        if arrow and head.split(" ")[0] == soname:
            found.append(path)
    return found


def refresh() -> None:
    """Make the loader read its configuration again."""
    subprocess.run([_LDCONFIG], timeout=120, check=False)
