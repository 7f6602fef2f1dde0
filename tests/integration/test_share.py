"""A share is the whole that a program sees, and what all programs of a session have together.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re

import pytest

from tests.integration.harness import Native, Outcome, Pool

MIB = 1 << 20


def reported(outcome: Outcome, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", outcome.stdout, re.MULTILINE)
    assert found is not None, outcome.describe()
    return int(found.group(1))


def test_a_fraction_is_the_total_that_the_program_sees(native: Native, pool: Pool) -> None:
    outcome = pool.run(native.program("memoryLimit"), options=["-n", "1", "-p", "0.25"])
    # The program itself checks that what is beyond its total is refused with out of memory.
    assert outcome.returncode == 0, outcome.describe()
    quarter = pool.total_bytes() // 4
    assert abs(reported(outcome, "total_bytes") - quarter) <= 2 * MIB
    assert reported(outcome, "properties_bytes") == reported(outcome, "total_bytes")


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_a_size_in_mib_is_the_total_that_the_program_sees(
    native: Native, pool: Pool, kind: str
) -> None:
    outcome = pool.run(native.program("memoryLimit", kind), options=["-n", "1", "-m", "512"])
    assert outcome.returncode == 0, outcome.describe()
    assert reported(outcome, "total_bytes") == 512 * MIB
    assert reported(outcome, "free_bytes") <= 512 * MIB


def test_memory_of_every_kind_counts(native: Native, pool: Pool) -> None:
    program = native.program("countedMemory", "driver")
    outcome = pool.run(program, "--mib", "300", options=["-n", "1", "-m", "512"])
    assert outcome.returncode == 0, outcome.describe()


def test_two_processes_of_a_session_share_one_share(native: Native, pool: Pool) -> None:
    program = native.program("memoryLimit")
    script = f"""
    coproc HOLDER {{ {program} --hold-mib 300; }}
    while read -r line <&"${{HOLDER[0]}}"; do
      case $line in HOLDING*) break;; esac
    done
    {program} --hold-mib 300 </dev/null; echo "while held: $?"
    echo go >&"${{HOLDER[1]}}"
    wait "$HOLDER_PID"; echo "holder: $?"
    {program} --hold-mib 300 </dev/null; echo "afterwards: $?"
    """
    outcome = pool.run("bash", options=["-n", "1", "-m", "512"], stdin=script)
    assert "while held: 1" in outcome.stdout, outcome.describe()
    assert "out of memory" in outcome.stderr, outcome.describe()
    assert "holder: 0" in outcome.stdout, outcome.describe()
    assert "afterwards: 0" in outcome.stdout, outcome.describe()


def test_two_sessions_hold_their_shares_at_once(native: Native, pool: Pool) -> None:
    program = native.program("memoryLimit")
    options = ["-n", "1", "-p", "0.4"]
    with pool.running(program, "--hold-mib", "900", options=options) as holder:
        holder.read_until("HOLDING")
        other = pool.run(program, options=options)
        assert other.returncode == 0, other.describe()
        assert holder.finish("\n").returncode == 0
