"""Pinned memory is one memory for program and server on one host, and goes with the program.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.harness import Native, Pool, descendants, eventually, kill, runs

MEMORY = "/memfd:outboard-pinned"


def mappers(pids: set[int]) -> set[int]:
    """Those of the processes that have shared pages."""
    found = set()
    for pid in pids:
        try:
            maps = Path(f"/proc/{pid}/maps").read_text()
        except OSError:  # it has ended, or is not ours to look at
            continue
        if MEMORY in maps:
            found.add(pid)
    return found


def test_a_killed_program_leaves_no_shared_memory(native: Native, own_pool: Pool) -> None:
    program = native.program("pinnedLive", "driver")
    with own_pool.running(program, "--hold", "1") as running:
        running.read_until("HOLDS")
        holder = next(p for p in descendants(running.process.pid) if runs(p, "pinnedLive"))
        assert mappers({holder}) == {holder}
        links = Path(f"/proc/{holder}/fd").iterdir()
        assert not [link for link in links if MEMORY in os.readlink(link)]
        workers = own_pool.workers()
        # To others than root a worker does not show what it maps.
        assert os.geteuid() != 0 or mappers(workers)
        kill(holder)
        running.finish()
    eventually("no worker has the memory", lambda: not mappers(workers & own_pool.workers()))


def test_sharing_can_be_switched_off(native: Native, pool: Pool) -> None:
    program = native.program("pinnedLive", "driver")
    apart = {"OUTBOARD_SHARED_MEMORY": "0"}
    outcome = pool.run(program, "--patience", "1", extra=apart)
    assert outcome.returncode == 1
    assert "not so: a running kernel and the program see each other's stores" in outcome.stderr


def test_a_limit_on_the_size_of_files_ends_no_program(native: Native, pool: Pool) -> None:
    """What is shared is a file to the kernel; beyond the limit memory is copied instead."""
    program = native.program("managedMemory", "static")
    outcome = pool.run("/bin/bash", "-c", 'ulimit -f 100; exec "$0"', program)
    assert outcome.returncode == 0, outcome.describe()
