"""The native files: shims, worker, software GPU. Where they are, and what if they are not.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os

from outboard.errors import NativeFilesMissing

# Where the distribution's package puts everything.
SYSTEM_ROOT = "/usr/lib/outboard"
SYSTEM_PACKAGE = f"{SYSTEM_ROOT}/python/outboard"


class NativeFiles:
    """One folder of native files; `root` holds `bin/` and `lib/`."""

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def shim_folder(self) -> str:
        """What goes in front of `LD_LIBRARY_PATH`."""
        return os.path.join(self.root, "lib/shim")

    @property
    def worker(self) -> str:
        return os.path.join(self.root, "bin/outboard-worker")

    @property
    def software_driver(self) -> str:
        """The software GPU's `libcuda.so.1`."""
        return os.path.join(self.root, "lib/softgpu/libcuda.so.1")

    def require_shim(self) -> None:
        """Raise unless programs can be given the shim."""
        self._require(os.path.join(self.shim_folder, "libcuda.so.1"), "the shim")

    def require_worker(self) -> None:
        """Raise unless workers can be started."""
        self._require(self.worker, "the worker")

    def _require(self, path: str, what: str) -> None:
        if not os.path.exists(path):
            raise NativeFilesMissing(
                f"{what} is missing: {path} does not exist",
                "build it with `make build` in the checkout, or name the folder that has bin/ and"
                " lib/ in OUTBOARD_NATIVE_DIR",
            )


def find_native_files() -> NativeFiles:
    """`$OUTBOARD_NATIVE_DIR`, else the package's own (`_native`, or the distribution's
    `/usr/lib/outboard`), else the checkout's `build`."""
    named = os.environ.get("OUTBOARD_NATIVE_DIR")
    if named:
        if not os.path.isdir(named):
            raise NativeFilesMissing(
                f"OUTBOARD_NATIVE_DIR is {named}, which is not a folder",
                "unset it, or name the folder that has bin/ and lib/",
            )
        return NativeFiles(os.path.abspath(named))
    package = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(package, "_native")
    if os.path.isdir(installed):
        return NativeFiles(installed)
    if package == SYSTEM_PACKAGE:
        return NativeFiles(SYSTEM_ROOT)
    return NativeFiles(os.path.join(os.path.dirname(os.path.dirname(package)), "build"))
