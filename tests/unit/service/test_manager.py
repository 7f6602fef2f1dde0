"""Only a job `stop` releases: a restart and a crash are taken over.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest

from outboard.service.manager import Job, job_of

LISTING = """\
123 outboard@default.service stop    running
124 outboard@other.service   restart waiting
"""


@pytest.mark.parametrize(
    ("unit", "job"),
    [
        ("outboard@default.service", Job("stop", "running")),
        ("outboard@other.service", Job("restart", "waiting")),
        ("outboard@third.service", Job()),
    ],
)
def test_a_units_job_is_found(unit: str, job: Job) -> None:
    assert job_of(LISTING, unit) == job


@pytest.mark.parametrize(
    ("job", "anew"),
    [
        (Job("restart", "running"), True),
        (Job("restart", "waiting"), True),
        (Job("start", "waiting"), True),
        (Job("start", "running"), False),
        (Job("stop", "running"), False),
        (Job(), False),
    ],
)
def test_a_start_that_runs_is_the_one_that_failed(job: Job, anew: bool) -> None:
    assert job.begins_anew == anew
