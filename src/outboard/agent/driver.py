"""Finds the driver that workers load: a real one by the loader's cache, else the software GPU.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from outboard.agent.elf import note_owners
from outboard.errors import ConfigurationError
from outboard.native import NativeFiles

SONAME = "libcuda.so.1"
OUR_NOTE = b"outboard"

# Where distributions, containers and WSL put the driver: not every one of them runs ldconfig.
_USUAL_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
)


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver library by absolute path, and how it was found."""

    path: str
    software: bool
    why: str


def candidate_drivers(setting: str, native: NativeFiles) -> list[Driver]:
    """The drivers to try, best first. `setting` is `auto`, `software`, or an absolute path."""
    software = Driver(native.software_driver, True, "the software GPU")
    if setting == "software":
        return [software]
    if setting != "auto":
        if not os.path.exists(setting):
            raise ConfigurationError(
                f"the driver {setting} does not exist", "write driver = auto, or correct the path"
            )
        if OUR_NOTE in note_owners(setting):
            raise ConfigurationError(
                f"the driver {setting} is Outboard's own shim: it has no device behind it",
                "name the real libcuda.so.1, or write driver = auto",
            )
        is_software = os.path.realpath(setting) == os.path.realpath(software.path)
        return [Driver(setting, is_software, "named by the setting `driver`")]
    real = [Driver(path, False, "from the loader's cache") for path in real_driver_paths()]
    return [*real, software]


def real_driver_paths(cache: str | None = None) -> list[str]:
    """Absolute paths of every `libcuda.so.1` of this machine that is not our own shim."""
    listing = _loader_cache() if cache is None else cache
    found = []
    for line in listing.splitlines():
        name, _, rest = line.strip().partition(" ")
        path = rest.rpartition("=> ")[2].strip()
        if name == SONAME and "x86-64" in rest and os.path.isabs(path):
            found.append(path)
    found += [os.path.join(folder, SONAME) for folder in _USUAL_FOLDERS] if cache is None else []
    real = [path for path in found if os.path.exists(path) and OUR_NOTE not in note_owners(path)]
    # Two names of one file are one driver.
    return list({os.path.realpath(path): path for path in reversed(real)}.values())[::-1]


def release_of(path: str) -> str:
    """A driver's release, as its file is named: `580.65.06`; empty where the name does not say."""
    found = os.path.basename(os.path.realpath(path)).removeprefix("libcuda.so.")
    return found if "." in found and found.replace(".", "").isdecimal() else ""


def _loader_cache() -> str:
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig"):
        try:
            done = subprocess.run(
                [program, "-p"], capture_output=True, text=True, timeout=10, check=True, env={}
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return done.stdout
    return ""
