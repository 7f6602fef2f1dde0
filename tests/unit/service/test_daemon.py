"""The service renews in time for every clock that runs against what it holds.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from outboard.client.pool import Granted
from outboard.service.daemon import next_look_s


def granted(grant_s: float = 600.0, **further: object) -> Granted:
    key = "ab" * 32
    node = {"name": "gpu1", "address": "127.0.0.1:1", "tls": "none", "grant": "g.s", "key": key}
    device = {"node": 0, "index": 0, "uuid": "GPU-1", "name": "GPU", "share_bytes": 1 << 20}
    session = {"version": 1, "session": "s-1", "form": "inline", "grant": "g.s", "key": key}
    session |= {"nodes": [node], "devices": [device]}
    answer = {"session": session, "grant_expires_unix": time.time() + grant_s, "lease_s": 180}
    return Granted({**answer, **further})


@pytest.mark.parametrize(
    ("further", "idle_s", "seconds"),
    [
        ({}, None, 30),
        # A controller ends a grant that was not picked up for half a minute: not after that.
        ({"renew_every_s": 10}, None, 10),
        ({"grant_s": 80}, None, 30),
        ({"grant_s": 40}, None, 20),
        ({"renew_every_s": 10}, 20, 5),
        ({"ends_s": 47.0}, None, 2),
        ({"ends_s": 44.0}, None, 30),
    ],
)
def test_the_next_look_is_in_time(
    further: dict[str, Any], idle_s: float | None, seconds: float
) -> None:
    found = next_look_s(granted(**further), idle_s, exchange_s=45.0)
    assert seconds * 0.9 <= found <= seconds
