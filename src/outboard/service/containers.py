"""What containers started by hand need: a CDI specification, or flags for docker and podman.

SPDX-License-Identifier: Apache-2.0

Libraries are put where every loader looks, so that an image's own LD_LIBRARY_PATH stays as it is.
The service's folder is given as a whole, since what is in it is made anew when the service starts.

The specification is of the version that Debian 12's podman reads, and has what that knows: a reader
takes no newer one, and no field that it does not know.
"""

from __future__ import annotations

import json
import os

from outboard.service.environment import Gain
from outboard.service.folders import ServiceFolders

CDI_FILE = "/etc/cdi/outboard.yaml"  # YAML, of which JSON is a part, for the sake of a comment
DEVICE = "outboard/gpu=all"
# Debian and its kin look in the first, Fedora and its kin in the second.
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64")
_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
_READ_ONLY = ["bind", "ro", "nosuid", "nodev"]


def cdi(folders: ServiceFolders, shim_folder: str, found: list[Gain]) -> str:
    """The specification of the device `outboard/gpu=all`."""
    mounts = [
        {"hostPath": source, "containerPath": target, "options": _READ_ONLY}
        for source, target in _binds(folders, shim_folder)
    ]
    edits = {"env": _settings(folders, found), "mounts": mounts}
    specification = {
        "cdiVersion": "0.3.0",
        "kind": DEVICE.partition("=")[0],
        "devices": [{"name": DEVICE.partition("=")[2], "containerEdits": edits}],
    }
    return json.dumps(specification, indent=2) + "\n"


def flags(folders: ServiceFolders, shim_folder: str, found: list[Gain]) -> list[str]:
    """The same for `docker run` and `podman run` without CDI."""
    return [
        *(f"--volume={source}:{target}:ro" for source, target in _binds(folders, shim_folder)),
        *(f"--env={setting}" for setting in _settings(folders, found)),
    ]


def _binds(folders: ServiceFolders, shim_folder: str) -> list[tuple[str, str]]:
    found = [
        (os.path.join(shim_folder, name), os.path.join(folder, name))
        for folder in _LIBRARY_FOLDERS
        for name in _LIBRARIES
    ]
    found += [(shim_folder, shim_folder), (folders.folder, folders.folder)]
    if not folders.session_file.startswith(f"{folders.folder}/"):
        found.append((folders.session_file, folders.session_file))
    return found


def _settings(folders: ServiceFolders, found: list[Gain]) -> list[str]:
    """What is set besides the search path of libraries; the session is named because the user's
    number in a container may be another."""
    kept = {gain.name: gain.value for gain in found if gain.name != "LD_LIBRARY_PATH"}
    kept["OUTBOARD_SESSION"] = folders.session_file
    return [f"{name}={value}" for name, value in sorted(kept.items())]
