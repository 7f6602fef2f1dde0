"""The lease's secret on disk, so that a service that was restarted or killed takes its GPUs over.

SPDX-License-Identifier: Apache-2.0

Written before anything is done that it may be needed for: a request is repeated by its id, and a
takeover that was under way is known by both secrets.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace

VERSION = 1


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One allocation's: what was asked for, the session once granted, the holder's secret."""

    request: str
    gpus: int
    share: dict[str, int]
    holder: str
    session: str = ""
    next_holder: str = ""  # while a takeover is under way
    version: int = field(default=VERSION)

    @property
    def holders(self) -> list[str]:
        """The secrets that the pool may know, the likeliest first."""
        return [self.next_holder, self.holder] if self.next_holder else [self.holder]


def new_record(gpus: int, share: dict[str, int]) -> LeaseRecord:
    """The record of a request that is about to be made."""
    return LeaseRecord(os.urandom(16).hex(), gpus, share, os.urandom(32).hex())


def taking_over(record: LeaseRecord) -> LeaseRecord:
    """The record with a secret for the next holder."""
    return replace(record, next_holder=os.urandom(32).hex())


class LeaseFile:
    """The file; None in place of a record where there is nothing to take over."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> LeaseRecord | None:
        try:
            with open(self._path, encoding="utf-8") as file:
                document = json.load(file)
            record = LeaseRecord(**document)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            return None  # of another release, or half of a disk: the lease ends by itself
        return record if record.version == VERSION else None

    def write(self, record: LeaseRecord | None) -> None:
        """Put the record in place in one step, mode 0600; None removes it."""
        if record is None:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
            return
        temporary = f"{self._path}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        os.rename(temporary, self._path)
