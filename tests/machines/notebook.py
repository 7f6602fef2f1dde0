"""Starts a Jupyter kernel as a notebook server does, and has a cell of it compute on the GPU.

SPDX-License-Identifier: Apache-2.0

Runs inside the machine, on a Python that has ipykernel. Prints what the cell prints.
"""

from __future__ import annotations

from jupyter_client.manager import start_new_kernel

_GUARD_S = 170
_CELL = """
import io, os, sys
sys.path.insert(0, "/opt/programs")
sys.stdin = io.StringIO("\\n")
import keeper
keeper.main()
print("TRITON_LIBCUDA_PATH=" + os.environ.get("TRITON_LIBCUDA_PATH", ""))
"""


def main() -> None:
    manager, client = start_new_kernel(startup_timeout=_GUARD_S)
    try:
        client.execute_interactive(_CELL, timeout=_GUARD_S)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
