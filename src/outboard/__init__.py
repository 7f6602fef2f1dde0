"""Outboard: GPUs of a pool of servers in any Linux machine, for programs that know nothing of it.

SPDX-License-Identifier: Apache-2.0
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`outboard.allocate`, loaded when it is asked for: the command line has no time for it."""
    if name in ("allocate", "Allocation"):
        from outboard import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module 'outboard' has no attribute {name!r}")
