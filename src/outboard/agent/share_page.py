"""The share page: what a session's workers hold of each device, mapped by all of them.

SPDX-License-Identifier: Apache-2.0

Layout in docs/internals/session.md §5. The agent makes it, hands out slots, and zeroes a slot once
its owner is reaped; between those only the owner writes it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

MAGIC = 0x3147504853424F4F
PAGE_BYTES = 64 * 1024
SLOTS = 256
MOST_DEVICES = 16

_LIMITS_AT = 64
_SLOTS_AT = 256
_U64 = struct.Struct("<Q")


class SharePage:
    """One session's page. `limits_bytes` are those of its devices, in the session's order."""

    def __init__(self, limits_bytes: list[int]) -> None:
        if not 1 <= len(limits_bytes) <= MOST_DEVICES:
            raise ValueError(f"{len(limits_bytes)} devices on a share page")
        self.descriptor = os.memfd_create("outboard-share", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, PAGE_BYTES)
        # A worker that shrank the page would end the agent with SIGBUS.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        self._map = mmap.mmap(self.descriptor, PAGE_BYTES)
        self._devices = len(limits_bytes)
        self._taken: set[int] = set()
        for at, value in ((0, MAGIC), (8, len(limits_bytes)), (16, SLOTS)):
            _U64.pack_into(self._map, at, value)
        self.set_limits(limits_bytes)

    def set_limits(self, limits_bytes: list[int]) -> None:
        """What the session may hold from now on. What is held above a lower limit stays held."""
        for number, limit_bytes in enumerate(limits_bytes):
            _U64.pack_into(self._map, _LIMITS_AT + 8 * number, limit_bytes)

    def take_slot(self) -> int | None:
        """A free slot, or None if the session has as many programs as the page has slots."""
        for slot in range(SLOTS):
            if slot not in self._taken:
                self._taken.add(slot)
                return slot
        return None

    def return_slot(self, slot: int) -> None:
        """Free what a reaped worker held. Never call it while the worker may still write."""
        start = _SLOTS_AT + 8 * MOST_DEVICES * slot
        self._map[start : start + 8 * MOST_DEVICES] = bytes(8 * MOST_DEVICES)
        self._taken.discard(slot)

    def held_bytes(self, device: int) -> int:
        """What all programs of the session hold of a device, as their workers say."""
        return sum(self.slot_bytes(slot, device) for slot in self._taken)

    def slot_bytes(self, slot: int, device: int) -> int:
        """What one worker holds of a device."""
        at = _SLOTS_AT + 8 * (MOST_DEVICES * slot + device)
        return int(_U64.unpack_from(self._map, at)[0])

    def close(self) -> None:
        """Unmap and close; the page lives on in workers that still map it."""
        self._map.close()
        os.close(self.descriptor)
