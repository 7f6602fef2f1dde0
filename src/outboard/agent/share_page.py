"""The share page: what a session's workers hold of each device, mapped by all of them.

SPDX-License-Identifier: Apache-2.0

Layout in docs/internals/session.md §5. The agent makes it, hands out slots, and zeroes a slot once
its owner is reaped; between those only the owner writes it.
"""

from __future__ import annotations

import fcntl
import os
import struct

from outboard.agent.usage import USAGE_AT, USAGE_BYTES, Use, monotonic_us, read_use

MAGIC = 0x3147504853424F4F
PAGE_BYTES = 320 * 1024
SLOTS = 256
MOST_DEVICES = 16

_LIMITS_AT = 64
_SLOTS_AT = 256
_U64 = struct.Struct("<Q")
_SLOT = struct.Struct(f"<{MOST_DEVICES}Q")


class SharePage:
    """One session's page, at an open descriptor that this object owns.

    Read and written by system calls, not mapped: a worker that shrank it would end the agent with
    SIGBUS.
    """

    def __init__(self, descriptor: int, devices: int) -> None:
        self.descriptor = descriptor
        self._devices = devices
        self._taken: set[int] = set()

    @classmethod
    def make(cls, limits_bytes: list[int], path: str | None = None) -> SharePage:
        """A new page. With a path it outlives the agent, which then opens it again by that name."""
        if not 1 <= len(limits_bytes) <= MOST_DEVICES:
            raise ValueError(f"{len(limits_bytes)} devices on a share page")
        if path is None:
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            descriptor = os.memfd_create("outboard-share", flags)
        else:
            new = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, new, 0o600)
        os.ftruncate(descriptor, PAGE_BYTES)
        if path is None:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        page = cls(descriptor, len(limits_bytes))
        for at, value in ((0, MAGIC), (8, len(limits_bytes)), (16, SLOTS)):
            page._write(at, value)
        page.set_limits(limits_bytes)
        return page

    @classmethod
    def open(cls, path: str, devices: int, taken: set[int]) -> SharePage:
        """The page of an agent before this one, whose workers still have the slots in `taken`."""
        page = cls(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), devices)
        page._taken = set(taken)
        if os.fstat(page.descriptor).st_size < PAGE_BYTES:
            # Of an older release. Its workers know less of the page, newer ones need all of it.
            os.ftruncate(page.descriptor, PAGE_BYTES)
        return page

    def set_limits(self, limits_bytes: list[int]) -> None:
        """What the session may hold from now on. What is held above a lower limit stays held."""
        for number, limit_bytes in enumerate(limits_bytes):
            self._write(_LIMITS_AT + 8 * number, limit_bytes)

    def take_slot(self) -> int | None:
        """A free slot, or None if the session has as many programs as the page has slots."""
        for slot in range(SLOTS):
            if slot not in self._taken:
                self._taken.add(slot)
                return slot
        return None

    def return_slot(self, slot: int) -> None:
        """Free what a reaped worker held. Never call it while the worker may still write."""
        os.pwrite(self.descriptor, bytes(_SLOT.size), _SLOTS_AT + _SLOT.size * slot)
        os.pwrite(self.descriptor, bytes(USAGE_BYTES), USAGE_AT + USAGE_BYTES * slot)
        self._taken.discard(slot)

    def held_bytes(self) -> list[int]:
        """What all programs of the session hold of each device, as their workers say."""
        slots = [self._slot(slot) for slot in self._taken]
        return [sum(slot[device] for slot in slots) for device in range(self._devices)]

    def slot_bytes(self, slot: int, device: int) -> int:
        """What one worker holds of a device."""
        return self._slot(slot)[device]

    def use(self, slot: int) -> Use | None:
        """What the program of a slot's worker did until now, as the worker says."""
        record = os.pread(self.descriptor, USAGE_BYTES, USAGE_AT + USAGE_BYTES * slot)
        return read_use(record, self._devices, monotonic_us())

    def close(self) -> None:
        """Close; the page lives on in workers that still map it."""
        os.close(self.descriptor)

    def _slot(self, slot: int) -> tuple[int, ...]:
        data = os.pread(self.descriptor, _SLOT.size, _SLOTS_AT + _SLOT.size * slot)
        return _SLOT.unpack(data.ljust(_SLOT.size, b"\0"))

    def _write(self, at: int, value: int) -> None:
        os.pwrite(self.descriptor, _U64.pack(value), at)
