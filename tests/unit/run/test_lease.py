"""Who holds a session tells its user once what the pool has to say.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from outboard.client.pool import Granted, Pool
from outboard.run.lease import HeldSession

_FOR_EVER_UNIX = 4_000_000_000


def granted(notice: str, ends_s: float | None = None) -> Granted:
    grant, key = "grant.signature", "ab" * 32
    node = {"name": "gpu1", "address": "127.0.0.1:1", "tls": "none", "grant": grant, "key": key}
    device = {"node": 0, "index": 0, "uuid": "GPU-1", "name": "GPU", "share_bytes": 1 << 20}
    session = {
        "version": 1,
        "session": "s-1",
        "form": "inline",
        "nodes": [node],
        "grant": grant,
        "key": key,
        "devices": [device],
    }
    answer = {"session": session, "grant_expires_unix": _FOR_EVER_UNIX, "renew_every_s": 0}
    return Granted({**answer, "notice": notice, "ends_s": ends_s})


class Answering:
    """A pool that says these notices, one with each renewal."""

    resumable = True

    def __init__(self, *notices: str) -> None:
        self._notices = list(notices)

    def lost(self) -> bool:
        return False

    def renew(self, _session: str) -> Granted:
        return granted(self._notices.pop(0))


class Ending(Answering):
    """A pool whose sessions end after so many seconds, another number with each renewal."""

    def __init__(self, *ends_s: float) -> None:
        super().__init__()
        self._ends_s = list(ends_s)

    def renew(self, _session: str) -> Granted:
        return granted("", self._ends_s.pop(0))


def test_a_warning_is_told_once_and_again_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(tmp_path))
    said: list[str] = []
    pool = Answering("", "it ends in 5m", "it ends in 4m", "", "it ends in 5m")
    held = HeldSession(cast("Pool", pool), granted(""), said.append)
    heard = []
    for _ in range(5):
        held.tick()
        heard.append(list(said))
    first = ["it ends in 5m"]
    assert heard == [[], first, first, first, first * 2]


def test_the_end_of_the_sessions_time_is_told_once_and_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(tmp_path))
    said: list[str] = []
    held = HeldSession(cast("Pool", Ending(1000, 201, 199, 198)), granted("", 1000), said.append)
    told = []
    for _ in range(4):
        held.tick()
        told.append(len(said))
    assert told == [0, 0, 1, 1]
    expected = "session s-1 ends in 3m1"
    assert said[0].startswith(expected), said
    assert said[0].endswith(
        "s, as the pool limits its time; programs that run then lose their GPUs"
    )
