"""Only a job `stop` releases: a restart and a crash are taken over.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest

from outboard.service.manager import job_of

LISTING = """\
123 outboard@default.service stop    running
124 outboard@other.service   restart waiting
"""


@pytest.mark.parametrize(
    ("unit", "job"),
    [
        ("outboard@default.service", "stop"),
        ("outboard@other.service", "restart"),
        ("outboard@third.service", ""),
    ],
)
def test_a_units_job_is_found(unit: str, job: str) -> None:
    assert job_of(LISTING, unit) == job
