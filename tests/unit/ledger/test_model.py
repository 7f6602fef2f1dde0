"""Never twice, never lost: random operations and crashes, judged after every step.

SPDX-License-Identifier: Apache-2.0

OUTBOARD_LEDGER_SEEDS and OUTBOARD_LEDGER_OPERATIONS (of all seeds together) make it longer, and
OUTBOARD_LEDGER_CRASHES is the share of operations that crash somewhere; `make soak` sets them.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.ledger.postgres import Postgres
from tests.unit.ledger.simulation import Simulation

SEEDS = int(os.environ.get("OUTBOARD_LEDGER_SEEDS", "50"))
OPERATIONS = int(os.environ.get("OUTBOARD_LEDGER_OPERATIONS", "20000"))
CRASHES = float(os.environ.get("OUTBOARD_LEDGER_CRASHES", "0.1"))
FIRST_SEED = int(os.environ.get("OUTBOARD_LEDGER_FIRST_SEED", "1"))
_MOST_WRITES = 40
_IDLE_RUNS = 40


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """As conftest's, but in memory where there is such a folder: nothing here needs a disk."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        yield server.url
        return
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="ob-ledger-", dir=parent))
    made = iter(range(10**6))
    yield lambda: f"sqlite:///{folder}/ledger{next(made)}.sqlite"
    shutil.rmtree(folder)


def test_random_operations_and_crashes_never_grant_twice_nor_lose(
    new_url: Callable[[], str],
) -> None:
    crashes = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        print(f"seed {seed}")
        simulation = Simulation(new_url(), seed)
        dice = random.Random(-seed)
        for _ in range(OPERATIONS // SEEDS):
            crash = dice.random() < CRASHES
            simulation.step(dice.randrange(1, 12) if crash else 0)
            crashes += simulation.crashed
        simulation.check_history()
        simulation.close()
    print(f"{OPERATIONS // SEEDS * SEEDS} operations, {crashes} of them crashed")


def test_every_operation_survives_a_crash_at_each_of_its_writes(
    new_url: Callable[[], str],
) -> None:
    simulation = Simulation(new_url(), 0, accompanied=0.0)
    points = dict.fromkeys(simulation.operations, 1)
    idle = dict.fromkeys(points, 0)
    # An operation that finds nothing to do has no writes; one is through when several in a row
    # came to their end before the next point.
    while any(count < _IDLE_RUNS for count in idle.values()):
        simulation.calm()
        for _ in range(5):
            simulation.step()
        for name, point in points.items():
            if idle[name] < _IDLE_RUNS and simulation.run(name, point):
                points[name], idle[name] = point + 1, 0
            else:
                idle[name] += 1
            assert point < _MOST_WRITES
    simulation.check_history()
    simulation.close()
    print({name: point - 1 for name, point in sorted(points.items())})
    del points["advance"]  # is the clock's, and writes nothing
    hardly = [name for name, point in points.items() if point < 3]
    assert not hardly, f"hardly crashed: {points}"
    # Writes, the commit's two sides among them; PostgreSQL has most of them in one statement.
    most = {"submit_for": 10, "grant": 10, "release": 8} if simulation.database.sqlite else {}
    assert all(points[name] > count for name, count in most.items()), f"did little: {points}"
