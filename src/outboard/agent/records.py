"""What of a session has to outlive its agent: who its workers are, and its share page.

SPDX-License-Identifier: Apache-2.0

One JSON file and one page for every session, in a folder that a reboot empties (/run), as it ends
the workers. The next agent reads them and goes on with what lives.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass

from outboard.agent.share_page import SharePage
from outboard.model.grant import Grant
from outboard.model.request import GrantedDevice

log = logging.getLogger("outboard.agent.records")


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A claimed worker. `start_time` (clock ticks since boot) with the pid names it for good.

    `uid` is its program's user where a ticket says it; `user` is whom it runs as, if it has a
    user of its own.
    """

    id: str
    pid: int
    start_time: int
    slot: int
    protocol: str
    uid: int | None = None
    user: int | None = None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session of this node as its last grant said, and the workers of its programs."""

    grant: Grant
    started_unix: float
    workers: tuple[WorkerRecord, ...]


class Records:
    """The records of one node's agent, in one folder that is the agent's alone."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def write(self, record: SessionRecord) -> None:
        """Put a session's record in place in one step."""
        grant = record.grant
        document = {
            "session": grant.session,
            "allocation": grant.allocation,
            "epoch": grant.epoch,
            "node": grant.node,
            "devices": [[device.index, device.share_bytes] for device in grant.devices],
            "uid": grant.uid,
            "expires": grant.expires_unix,
            "started": record.started_unix,
            "workers": [asdict(worker) for worker in record.workers],
        }
        path = self._path(grant.session, "json")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.write("\n")
        os.rename(f"{path}.new", path)

    def new_page(self, session: str, limits_bytes: list[int]) -> SharePage:
        """A page for a session that has none; what an ended one left behind is replaced."""
        path = self._path(session, "page")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return SharePage.make(limits_bytes, path)

    def open_page(self, record: SessionRecord) -> SharePage:
        """The page that the session's workers have."""
        taken = {worker.slot for worker in record.workers}
        path = self._path(record.grant.session, "page")
        return SharePage.open(path, len(record.grant.devices), taken)

    def forget(self, session: str) -> None:
        """Remove what is kept of a session."""
        for kind in ("json", "page"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(session, kind))

    def read_all(self) -> list[SessionRecord]:
        """The sessions that the agent before this one had."""
        records = []
        for name in sorted(os.listdir(self._folder)):
            if not name.endswith(".json"):
                continue
            path = os.path.join(self._folder, name)
            try:
                with open(path, encoding="utf-8") as file:
                    records.append(_parse(json.load(file)))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.error("%s cannot be used, its session is given up: %r", path, error)
        return records

    def _path(self, session: str, kind: str) -> str:
        # The name is from a signed grant; it must still not be able to leave the folder.
        return os.path.join(self._folder, f"{session.replace('/', '_')}.{kind}")


def start_time_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none of that pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Names may hold blanks and parentheses: fields are counted from the last ')'.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _parse(document: dict[str, object]) -> SessionRecord:
    node, devices, workers = document["node"], document["devices"], document["workers"]
    if not isinstance(devices, list) or not isinstance(workers, list):
        raise TypeError("devices and workers are lists")
    grant = Grant(
        session=str(document["session"]),
        allocation=str(document["allocation"]),
        epoch=int(str(document["epoch"])),
        node=str(node),
        devices=tuple(GrantedDevice(str(node), int(at), int(share)) for at, share in devices),
        uid=int(str(document["uid"])),
        expires_unix=int(str(document["expires"])),
    )
    return SessionRecord(
        grant, float(str(document["started"])), tuple(WorkerRecord(**worker) for worker in workers)
    )
