"""`outboard run -n 1 -- bash`: one allocation for what runs in it, one after another and at once.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from tests.integration.harness import Native, Pool, eventually


def test_programs_of_a_shell_share_its_allocation(native: Native, pool: Pool) -> None:
    programs = [native.program(name) for name in ("vectorAdd", "matrixMul", "histogram")]
    script = "\n".join(
        [
            'echo "session $OUTBOARD_SESSION"',
            *[f"{program} || exit 21" for program in programs],
            # Two at once.
            f"{programs[0]} > first.out & first=$!",
            f"{programs[1]} > second.out & second=$!",
            "wait $first || exit 22",
            "wait $second || exit 23",
            "cat first.out second.out",
            'echo "session $OUTBOARD_SESSION"',
            "exit 7",
        ]
    )
    folder = pool.folder / "shell"
    folder.mkdir()
    outcome = pool.run("bash", stdin=f"cd {folder}\n{script}\n")
    assert outcome.returncode == 7, outcome.describe()
    for name, times in (("vectorAdd", 2), ("matrixMul", 2), ("histogram", 1)):
        assert outcome.stdout.count(f"{name}: Result = PASS") == times
    sessions = [line for line in outcome.stdout.splitlines() if line.startswith("session ")]
    assert len(sessions) == 2
    assert sessions[0] == sessions[1] != "session "


def test_a_shell_is_one_session_and_gone_afterwards(native: Native, pool: Pool) -> None:
    with pool.running("bash") as shell:
        assert shell.process.stdin is not None
        shell.process.stdin.write(f"{native.program('vectorAdd')} && echo DONE\n")
        shell.process.stdin.flush()
        shell.read_until("DONE")
        sessions = pool.json("sessions")["sessions"]
        assert len(sessions) == 1
        assert len(sessions[0]["devices"]) == 1
        assert shell.finish("exit 0\n").returncode == 0
    eventually("the session is released", lambda: not pool.json("sessions")["sessions"])


def test_run_inside_a_session_joins_it(native: Native, pool: Pool) -> None:
    outboard = pool.command()[0]
    program = native.program("vectorAdd")
    script = (
        f"{outboard} sessions --json | grep -c '\"id\"'\n"
        f"{outboard} run -- {program}\n"
        f"{outboard} run -- sh -c '{outboard} sessions --json | grep -c \\\"id\\\"'\n"
    )
    outcome = pool.run("bash", stdin=script)
    assert outcome.returncode == 0, outcome.describe()
    assert "vectorAdd: Result = PASS" in outcome.stdout
    counts = [line for line in outcome.stdout.splitlines() if line.isdigit()]
    assert counts == ["1", "1"], outcome.describe()


def test_a_program_killed_by_a_signal_gives_128_and_its_number(pool: Pool) -> None:
    outcome = pool.run("bash", stdin="kill -TERM $$\n")
    assert outcome.returncode == 128 + 15, outcome.describe()
