"""Signals and job control of `outboard run`, on a terminal of its own where that matters.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.conftest import Outboard, eventually

# Signals 1 to 31: those above are the C library's and the test runner's business.
STANDARD_SIGNALS = (1 << 31) - 1

# Counts what reaches it, and says so when it is told to by SIGUSR2 or ends by SIGTERM.
COUNTER = textwrap.dedent(
    r"""
    import os, signal, sys, time
    seen = {}
    def count(number, frame):
        name = signal.Signals(number).name
        seen[name] = seen.get(name, 0) + 1
        os.write(1, f"{name} {seen[name]}\n".encode())  # print is not re-entrant
        if name == "SIGTERM":
            sys.exit(9)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGWINCH"):
        signal.signal(getattr(signal, name), count)
    print("ready", os.getpid(), flush=True)
    while True:
        signal.pause()
    """
)


class Terminal:
    """A command as the foreground job of a new terminal, with a shell's part played by the test."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, environment)
        self.output = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        def found() -> bool:
            if re.search(pattern, self.output):
                return True
            if select.select([self.descriptor], [], [], 0)[0]:
                self.output += os.read(self.descriptor, 4096).decode()
            return False

        try:
            eventually(found, f"{pattern!r} on the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; so far {self.output!r}") from None
        match = re.search(pattern, self.output)
        assert match
        return match

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def exit_code(self) -> int:
        """Wait for the command's end."""
        statuses: list[int] = []

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            statuses.append(status)
            return pid == self.pid

        eventually(ended, "the end of the command")
        return os.waitstatus_to_exitcode(statuses[-1])


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        os.close(terminal.descriptor)


def test_signals_sent_to_the_launcher_reach_the_program_once(outboard: Outboard) -> None:
    launcher = outboard.start("run", sys.executable, "-c", COUNTER)
    assert launcher.stdout is not None
    assert launcher.stdout.readline().startswith("ready")
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGQUIT", "SIGWINCH", "SIGTERM"):
        launcher.send_signal(getattr(signal, name))
        assert launcher.stdout.readline() == f"{name} 1\n"
    assert launcher.wait() == 9
    launcher.communicate()
    assert outboard.session_files() == []


def test_a_signal_from_the_programs_own_group_is_not_sent_twice(outboard: Outboard) -> None:
    script = "trap 'echo usr1' USR1; kill -USR1 0; sleep 0.3; echo end"
    launcher = subprocess.run(
        outboard.command("run", "sh", "-c", script),
        env=outboard.environment,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,  # `kill 0` reaches the whole group: it must not be the test's
    )
    assert launcher.stdout == "usr1\nend\n"


def test_what_is_ignored_stays_ignored(outboard: Outboard) -> None:
    done = subprocess.run(
        [
            *("sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"),
            *outboard.command("run", "grep", "SigIgn", "/proc/self/status"),
        ],
        env=outboard.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.split()[1], 16) & STANDARD_SIGNALS == 0b11


def test_the_programs_signals_are_as_a_shell_would_give_them(outboard: Outboard) -> None:
    done = outboard("run", "grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
    masks = [int(line.split()[1], 16) for line in done.stdout.splitlines()]
    assert [mask & STANDARD_SIGNALS for mask in masks] == [0, 0]


def test_control_c_reaches_the_program_once(outboard: Outboard, terminals: list[Terminal]) -> None:
    command = outboard.command("run", "-q", sys.executable, "-c", COUNTER)
    terminal = Terminal(command, outboard.environment)
    terminals.append(terminal)
    terminal.read_until(r"ready \d+")
    terminal.type("\x03")
    terminal.read_until("SIGINT 1")
    terminal.type("\x1c")
    terminal.read_until("SIGQUIT 1")
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.read_until("SIGTERM 1")
    assert "SIGINT 2" not in terminal.output
    assert terminal.exit_code() == 9


def test_control_z_stops_launcher_and_program_and_fg_continues_both(
    outboard: Outboard, terminals: list[Terminal]
) -> None:
    # The shell is the session's leader and has job control, as a user's has.
    line = " ".join(outboard.command("run", "-q", "cat"))
    terminal = Terminal(
        ["/bin/bash", "--norc", "--noediting", "-i"], {**outboard.environment, "PS1": "ready> "}
    )
    terminals.append(terminal)
    terminal.read_until("ready> ")
    terminal.type(f"{line}\n")
    terminal.type("one\n")
    terminal.read_until(r"one\r\none")
    terminal.type("\x1a")
    terminal.read_until(r"Stopped(.*\n)+ready> ")
    terminal.type("fg\n")
    terminal.type("two\n")
    terminal.read_until(r"two\r\n(.*\r\n)?two")
    terminal.type("\x04")
    terminal.type("echo code $?\n")
    terminal.read_until("code 0")
    terminal.type("exit\n")
    assert terminal.exit_code() == 0


def test_an_interactive_shell_has_job_control(
    outboard: Outboard, terminals: list[Terminal]
) -> None:
    command = outboard.command("run", "-q", "bash", "--norc", "--noediting", "-i")
    terminal = Terminal(command, {**outboard.environment, "PS1": "inner> "})
    terminals.append(terminal)
    terminal.read_until("inner> ")
    terminal.type("cat\n")
    terminal.type("one\n")
    terminal.read_until(r"one\r\none")
    terminal.type("\x1a")
    terminal.read_until(r"Stopped(.*\n)+inner> ")
    terminal.type("fg\n")
    terminal.type("two\n")
    terminal.read_until(r"two\r\n(.*\r\n)?two")
    terminal.type("\x04")
    terminal.type("echo now\n")
    terminal.read_until(r"now\r\ninner> ")
    terminal.type("\x03")  # reaches the shell alone: neither it nor the launcher ends
    terminal.read_until(r"\^C(.*\n)+inner> ")
    terminal.type("exit 5\n")
    assert terminal.exit_code() == 5


def test_stopping_and_continuing_the_launcher_stops_and_continues_the_program(
    outboard: Outboard,
) -> None:
    script = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(1000)"
    launcher = subprocess.Popen(
        outboard.command("run", "-q", sys.executable, "-c", script),
        env=outboard.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert launcher.stdout is not None
    program = int(launcher.stdout.readline())
    launcher.send_signal(signal.SIGTSTP)
    # An orphaned process group is not stopped by SIGTSTP, but a program may be stopped by hand.
    os.kill(program, signal.SIGSTOP)
    eventually(lambda: _state(launcher.pid) == "T", "the launcher stops with its program")
    launcher.send_signal(signal.SIGCONT)
    eventually(lambda: _state(program) in "SR", "the program continues with its launcher")
    launcher.terminate()
    assert launcher.wait() == 128 + signal.SIGTERM
    launcher.stdout.close()


def _state(pid: int) -> str:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()[0]
