"""What NVML says makes a device unhealthy or well, and what it does not say makes neither.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Any

import pytest

from outboard.agent.health import DeviceHealth
from outboard.model.node import Device

UUID = "GPU-1"
WELL = {"found": True, "lost": False, "temperature_c": 41, "ecc_uncorrected": 0}
ABSENT = {"found": False, "lost": False}


class Watched:
    """The health of one device, and how often its change was told."""

    def __init__(self) -> None:
        self.changes = 0
        device = Device(0, UUID, "GPU", 1, 1, 0, 0, "9.0", "", 1)
        self.health = DeviceHealth([device], self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def take(self, **reading: Any) -> dict[str, object]:
        self.health.take([reading])
        (told,) = self.health.report()
        return told


def test_a_device_of_which_nothing_is_known_is_well() -> None:
    watched = Watched()
    (told,) = watched.health.report()
    assert (told["healthy"], told["temperature_c"]) == (True, None)
    assert watched.take(**ABSENT)["healthy"] is True, "NVML may call it otherwise (MIG)"
    assert watched.changes == 0


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        ({**WELL, "ecc_uncorrected": 1}, "1 uncorrectable memory error since its driver started"),
        ({**WELL, "ecc_uncorrected": 3}, "3 uncorrectable memory errors since"),
        ({**WELL, "remap_failed": True}, "broken rows of its memory could not be replaced"),
        ({"found": True, "lost": True}, "it has fallen off the bus"),
        (ABSENT, "it has fallen off the bus"),
    ],
)
def test_what_is_broken_is_named_and_heals(reading: dict[str, Any], reason: str) -> None:
    watched = Watched()
    assert watched.take(**WELL)["temperature_c"] == 41
    for _ in range(2):
        told = watched.take(**reading)
        assert told["healthy"] is False
        assert str(told["reason"]).startswith(reason)
        assert watched.changes == 1, "the same trouble is no news"
    assert watched.take(**WELL)["healthy"] is True
    assert watched.changes == 2


def test_a_failure_that_an_event_told_of_stays_until_the_agent_is_another() -> None:
    watched = Watched()
    assert watched.take(**WELL, xid=31)["healthy"] is True, "a program's fault"
    told = watched.take(**WELL, xid=79)
    assert told["healthy"] is False
    assert str(told["reason"]).startswith("XID 79: it has fallen off the bus; reset it")
    assert watched.take(**WELL, xid=None)["healthy"] is False
    assert watched.changes == 1
