"""An idle limit ends what calls nothing, monitors included, and nothing that computes.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outboard.ledger import limits
from outboard.ledger.grants import Granted
from outboard.ledger.schema import allocations, audit
from tests.integration.harness import Native, Running, clean_environment, eventually
from tests.unit.controller.site import Site, new_site

MIB = 1 << 20
IDLE_S = 4

_MONITOR = """
import ctypes, time
nvml = ctypes.CDLL("libnvidia-ml.so.1")
device, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
assert nvml.nvmlInit_v2() == 0
assert nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0
assert nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0
print("READY", flush=True)
while (result := nvml.nvmlDeviceGetMemoryInfo(device, memory)) == 0:
    time.sleep(0.02)
print("LOST", result, flush=True)
"""


@pytest.fixture
def site(native: Native) -> Iterator[Site]:
    with new_site(native.root) as made:
        made.add_agent("gpu1")
        yield made


def start(site: Site, native: Native, granted: Granted, *words: str | Path) -> Running:
    path = site.folder / f"{granted.session}.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(site.session(granted)))
    environment = clean_environment(site.folder) | {
        "LD_LIBRARY_PATH": str(native.shim),
        "OUTBOARD_SESSION": str(path),
    }
    return Running([str(word) for word in words], environment)


def standing(site: Site, granted: Granted) -> tuple[str, str]:
    row = site.parts.database.read(
        lambda tx: tx.connection.execute(
            allocations.select().where(allocations.c.id == granted.allocation)
        ).one()
    )
    return row.state, row.reason


def test_what_calls_nothing_is_warned_and_ended_and_what_computes_goes_on(
    site: Site, native: Native
) -> None:
    database = site.parts.database
    with ExitStack() as stack:
        busy, watched, held = (site.grant([("gpu1", 0, 300 * MIB)]) for _ in range(3))

        def running(granted: Granted, *words: str | Path) -> Running:
            program = start(site, native, granted, *words)
            stack.callback(program.stop)
            return program

        computing = running(busy, native.program("longLoop"))
        computing.read_until("READY")
        monitor = running(watched, sys.executable, "-c", _MONITOR)
        monitor.read_until("READY")
        holder = running(held, native.program("memoryLimit"), "--hold-mib", "50")
        holder.read_until("HOLDING")
        database.write(lambda tx: limits.set_limit(tx, ("user", "ada"), "idle_s", IDLE_S))
        for granted in (watched, held):

            def has_ended(one: Granted = granted) -> bool:
                return standing(site, one)[0] == "ended"

            eventually("it ends", has_ended)
            reason = standing(site, granted)[1]
            assert re.fullmatch(
                rf"idle for \d+s: user ada may keep GPUs without a call for {IDLE_S}s", reason
            ), reason
        assert monitor.read_until("LOST").startswith("LOST")
        warned = database.read(
            lambda tx: tx.connection.execute(
                audit.select().where(audit.c.action == "idle.warning")
            ).all()
        )
        assert {row.subject for row in warned} == {watched.session, held.session}
        # It was there before them, and under the same limit.
        assert standing(site, busy)[0] == "active"
        assert computing.process.poll() is None
