"""GPUs of a pool inside a Python program: `with outboard.allocate(gpus=1, share=0.5): …`.

SPDX-License-Identifier: Apache-2.0

What a library finds as `libcuda.so.1` is decided when it is first loaded: so this comes before
torch is imported, and says so if it is too late. A process of its own holds and renews the session,
since a library may keep the interpreter's lock for longer than a lease.
"""

from __future__ import annotations

import ctypes
import os
from types import TracebackType
from typing import Self

from outboard.errors import ConfigurationError
from outboard.native import find_native_files
from outboard.run.environment import drop_machine_choices, session_environment
from outboard.run.holder import Started, held_sessions, release_held, start_holder
from outboard.run.lease import Wish
from outboard.units import parse_fraction

_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")


class Allocation:
    """A session that this program uses. It ends with `release`, the block, or the process."""

    def __init__(self, started: Started) -> None:
        self.session = started.session
        self.file = started.path

    def release(self) -> None:
        """Give the GPUs back. This process cannot use CUDA afterwards."""
        pid = held_sessions().get(self.session)
        if pid is not None:
            release_held(self.session, pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def allocate(
    gpus: int = 1,
    *,
    share: float | str | None = None,
    memory_mib: int | None = None,
    wait_s: float | None = None,
    **wishes: object,
) -> Allocation:
    """Allocate GPUs for this process and its children, before CUDA is loaded.

    `share` is the fraction of each GPU's memory (0.5), `memory_mib` an amount; neither is all of
    it. `wait_s` None waits without limit, 0 not at all. `wishes` are further fields of a request
    (docs/reference/pool-api.md). Raises an `OutboardError`: `ConfigurationError` if a libcuda is
    loaded already.
    """
    loaded = _loaded_driver()
    if loaded is not None:
        raise ConfigurationError(
            f"CUDA is loaded already ({loaded}): it keeps the GPUs that it found",
            "call outboard.allocate before torch, cupy or numba is imported",
        )
    if share is not None and memory_mib is not None:
        raise ConfigurationError("share and memory_mib exclude each other", "give one of them")
    native = find_native_files()
    native.require_shim()
    wanted: dict[str, object] = {}
    if share is not None:
        text = share if isinstance(share, str) else f"{share:.6f}"
        wanted = {"millionths": parse_fraction(text)}
    elif memory_mib is not None:
        wanted = {"bytes": memory_mib << 20}
    wish = Wish(gpus, wanted, wait_s, dict(wishes), _program())
    started = start_holder(wish, lambda _standing: None, with_pid=os.getpid())
    environment = session_environment(
        os.environ, started.path, native.shim_folder, software=started.software
    )
    drop_machine_choices(environment)
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    os.environ.update(environment)
    for library in _LIBRARIES:
        # By path, for this process: the loader has read LD_LIBRARY_PATH long ago.
        ctypes.CDLL(os.path.join(native.shim_folder, library), mode=ctypes.RTLD_GLOBAL)
    return Allocation(started)


def _loaded_driver() -> str | None:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if os.path.basename(path).startswith("libcuda.so"):
                return f"/{path}"
    return None


def _program() -> str:
    try:
        with open("/proc/self/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return "python"
