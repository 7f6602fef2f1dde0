"""The environment that makes a program use a session.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Mapping

# Which devices are visible, and in which order, was said of the machine's own GPUs.
_OF_THE_MACHINE = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


def session_environment(
    inherited: Mapping[str, str], session_path: str, shim_folder: str, *, software: bool
) -> dict[str, str]:
    """The variables of a program in a session; `inherited` is left as it is.

    The shims come first in `LD_LIBRARY_PATH`, once, whatever was there before: joining a session
    inside a session must not make it longer.
    """
    environment = dict(inherited)
    before = inherited.get("LD_LIBRARY_PATH", "")
    rest = ":".join(part for part in before.split(":") if part != shim_folder)
    # No colon without something behind it: an empty part would be the current folder.
    environment["LD_LIBRARY_PATH"] = f"{shim_folder}:{rest}" if rest else shim_folder
    environment["OUTBOARD_SESSION"] = session_path
    environment["TRITON_LIBCUDA_PATH"] = shim_folder
    if software:
        environment["CUPY_COMPILE_WITH_PTX"] = "1"  # the software GPU runs PTX, not machine code
    return environment


def drop_machine_choices(environment: dict[str, str]) -> list[str]:
    """Take out what was said of the machine's own GPUs; returns what was taken, for the message."""
    taken = []
    for name in _OF_THE_MACHINE:
        if name in environment:
            taken.append(f"{name}={environment.pop(name)}")
    return taken
