"""Runs the program in the foreground: signals, job control, exit code.

SPDX-License-Identifier: Apache-2.0

The child stays in the launcher's process group, as under `env` or `nice`, so that pipelines and the
terminal treat both as one job. What the terminal sends reaches the child by itself (the kernel
says so in si_code); what a process sends to the launcher is passed on. When the child stops, the
launcher stops; when the launcher is continued, the child is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from outboard.errors import CommandNotExecutable, CommandNotFound
from outboard.run.command import Command

_SI_KERNEL = 0x80

_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGWINCH,
    signal.SIGALRM,
)
_WATCHED = (*_FORWARDED, signal.SIGCONT, signal.SIGCHLD)
_SAME_SIGNAL_S = 0.1


class Child:
    """The program, from its start to its exit code.

    Making one blocks the watched signals in this process: they are taken by `wait`, one at a time.
    """

    def __init__(self) -> None:
        # Ignored ones (nohup, a background job of a script) stay ignored, here and in the child.
        self._watched = [
            number for number in _WATCHED if signal.getsignal(number) is not signal.SIG_IGN
        ]
        if signal.SIGALRM not in self._watched:
            self._watched.append(signal.SIGALRM)
        self._mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        self._pid = 0
        self._last: tuple[int, int, float] = (0, 0, 0.0)

    def start(self, command: Command, environment: dict[str, str]) -> None:
        """Start the program; raises `CommandNotFound` or `CommandNotExecutable`."""
        to_default = [signal.SIGPIPE, signal.SIGXFSZ]  # Python ignores them for itself
        try:
            self._pid = os.posix_spawn(
                command.path,
                command.arguments,
                environment,
                setsigmask=self._mask_before,
                setsigdef=to_default,
            )
        except FileNotFoundError as error:
            # The file was there: it is its interpreter that is missing.
            raise CommandNotFound(
                f"{command.path}: its interpreter does not exist", "look at its first line (#!)"
            ) from error
        except OSError as error:
            raise CommandNotExecutable(
                f"{command.path}: {error.strerror}", f"look at it: file {command.path}"
            ) from error
        # Writing a message must not stop the launcher if the child kept the terminal to itself.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        # The clock of `wait`, which must not be lost where SIGALRM was ignored.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def wait(self, tick: Callable[[], float]) -> int:
        """Pass signals on until the program ends; returns its exit code, 128+n for signal n.

        `tick` is called after every signal and stop, and after as many seconds as it returned.
        """
        while True:
            code = self._reap()
            if code is not None:
                return code
            # A timer and not `sigtimedwait`: that returns a random signal if it was interrupted by
            # a stop and its time is over when it goes on (seen with CPython 3.11).
            signal.setitimer(signal.ITIMER_REAL, tick())
            info = signal.sigwaitinfo(self._watched)
            if info.si_signo != signal.SIGCHLD:
                self._handle(info)

    def _handle(self, info: signal.struct_siginfo) -> None:
        number = info.si_signo
        if number == signal.SIGCONT:
            # `fg` continues the whole group; `kill -CONT` only the launcher.
            self._send(signal.SIGCONT)
            return
        if info.si_code == _SI_KERNEL or self._from_inside(info.si_pid):
            return
        now = time.monotonic()
        last_number, last_pid, last_time = self._last
        self._last = (number, info.si_pid, now)
        # `timeout` and others signal first the process, then its group: that is one signal.
        if (number, info.si_pid) != (last_number, last_pid) or now - last_time > _SAME_SIGNAL_S:
            self._send(signal.Signals(number))

    def _reap(self) -> int | None:
        """The exit code if the program has ended; follows it if it has stopped."""
        pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if os.WIFSTOPPED(status):
            self._stop_with_child()
            return None
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code

    def _stop_with_child(self) -> None:
        """Stop, so that the shell sees its job stopped; the shell's `fg` or `bg` ends this."""
        os.kill(os.getpid(), signal.SIGSTOP)
        # Continued. SIGCONT is pending and blocked: `_handle` continues the child.

    def _from_inside(self, sender: int) -> bool:
        """Whether the program, or a process below it, sent this: `kill 0` reached it as well."""
        for _ in range(64):
            if sender == self._pid:
                return True
            if sender <= 1:
                return False
            sender = _parent_of(sender)
        return False

    def _send(self, number: signal.Signals) -> None:
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            pass  # it ended; the next round reaps it


def _parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
