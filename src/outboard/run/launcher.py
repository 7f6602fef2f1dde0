"""`outboard run` from the parsed command line to the program's exit code.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import socket
import sys
import time

from outboard.client.pool import Granted, Pool, Queueing, acquire
from outboard.directories import runtime_directory, sessions_directory
from outboard.errors import OutboardError, PoolBusy, PoolUnreachable, SessionFileUnreadable
from outboard.model.session_file import (
    SessionFile,
    find_session_file,
    read_session_file,
    write_session_file,
)
from outboard.native import NativeFiles, find_native_files
from outboard.run.child import Child
from outboard.run.command import Command, resolve_command
from outboard.run.environment import drop_machine_choices, session_environment
from outboard.run.waiting import WaitLine
from outboard.settings import load_settings
from outboard.units import format_mib

# Memory that a program just freed comes back within moments: not worth a message.
_QUIET_WAIT_S = 1.0
_LONGEST_PROGRAM_TEXT = 200
_PROBE_TIMEOUT_S = 3.0
_TICK_S = 30.0
_RETRY_S = 5.0


class RunOptions:
    """What the command line of `outboard run` says. `share` is as the pool's API takes it."""

    def __init__(
        self,
        words: list[str],
        *,
        gpus: int | None = None,
        share: dict[str, object] | None = None,
        wait_s: float | None = None,
        quiet: bool = False,
        wishes: dict[str, object] | None = None,
    ) -> None:
        """`wishes` are further fields of a request, which a controller understands."""
        self.words = words
        self.wishes = wishes or {}
        self.gpus = gpus
        self.share = share
        self.wait_s = wait_s
        self.quiet = quiet

    @property
    def asks(self) -> bool:
        """Whether it asks for GPUs of its own, also inside a session."""
        return self.gpus is not None or self.share is not None or bool(self.wishes)


def run(options: RunOptions) -> int:
    """Run the program on GPUs of the pool; returns the exit code. May not return: see `_join`."""
    command = resolve_command(options.words)
    native = find_native_files()
    native.require_shim()
    if not options.asks:
        path = find_session_file()
        if path is not None:
            _join(path, command, native, options)
    return _Run(options, command, native).run()


def _join(path: str, command: Command, native: NativeFiles, options: RunOptions) -> None:
    """Become the program, in the session that there already is; returns only if it cannot."""
    content = read_session_file(path)
    _probe(content)
    _say(options, f"using session {content.session}{_of_session(content)}")
    environment = session_environment(os.environ, path, native.shim_folder, software=False)
    sys.stdout.flush()
    sys.stderr.flush()
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execve(command.path, command.arguments, environment)
    except OSError as error:
        from outboard.errors import CommandNotExecutable

        raise CommandNotExecutable(
            f"{command.path}: {error.strerror}", f"look at it: file {command.path}"
        ) from error


def _probe(content: SessionFile) -> None:
    """Raise unless somebody listens where the session's programs will connect."""
    for node in content.nodes:
        host, _, port = node.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT_S).close()
        except OSError as error:
            raise PoolUnreachable(
                f"nobody answers at {node.address} ({node.name}), where session"
                f" {content.session} has its GPU: {error.strerror or error}",
                "start a new session: unset OUTBOARD_SESSION; outboard run -n 1 -- COMMAND",
            ) from error


class _Run:
    """One `outboard run` that allocates: request, session file, program, release."""

    def __init__(self, options: RunOptions, command: Command, native: NativeFiles) -> None:
        self._options = options
        self._command = command
        self._native = native
        self._path = ""
        self._told_loss = False
        self._told_silence = False
        self._grant_expires_unix = 0.0
        self._renew_at_unix = 0.0
        self._pool: Pool
        self._session = ""

    def run(self) -> int:
        self._pool, granted = self._acquire()
        self._session = granted.session.session
        try:
            child = Child()
            self._write(granted)
            self._tell(granted)
            environment = session_environment(
                os.environ, self._path, self._native.shim_folder, software=granted.software
            )
            dropped = drop_machine_choices(environment)
            if dropped:
                _say(
                    self._options,
                    f"ignoring {' '.join(dropped)}: it names this machine's GPUs, the session's are"
                    " numbered from 0",
                )
            child.start(self._command, environment)
            return child.wait(self._tick)
        finally:
            self._release()

    def _acquire(self) -> tuple[Pool, Granted]:
        options = self._options
        settings = load_settings()
        gpus = options.gpus or 1
        share = options.share or {}
        program = program_text(str(self._command))
        line = WaitLine(quiet=options.quiet)
        queue = Queueing(options.wishes, options.wait_s, line.tell)
        quiet_s = _QUIET_WAIT_S if options.wait_s is None else min(_QUIET_WAIT_S, options.wait_s)
        started = time.monotonic()
        try:
            return acquire(settings, gpus, share, quiet_s, program, queue)
        except OutboardError as error:
            spent_s = time.monotonic() - started
            if not _would_wait(error, options.wait_s, spent_s):
                raise
            _say(options, f"the pool is busy, waiting: {error.message.partition(': ')[2]}")
        finally:
            line.end()
        left_s = None if options.wait_s is None else max(0.0, options.wait_s - spent_s)
        return acquire(settings, gpus, share, left_s, program, queue)

    def _write(self, granted: Granted) -> None:
        folder = sessions_directory(runtime_directory())
        self._path = os.path.join(folder, f"{self._session}.json")
        try:
            write_session_file(self._path, granted.session)
        except OSError as error:
            raise SessionFileUnreadable(
                f"the session file {self._path} cannot be written: {error.strerror}",
                "make room there, or name another folder in OUTBOARD_RUNTIME_DIR",
            ) from error
        now_unix = time.time()
        self._renew_at_unix = (now_unix + granted.grant_expires_unix) / 2
        if granted.renew_every_s is not None:
            self._renew_at_unix = min(self._renew_at_unix, now_unix + granted.renew_every_s)

    def _tell(self, granted: Granted) -> None:
        if self._pool.embedded:
            kind = "software GPU, for trying out" if granted.software else "its own GPUs"
            _say(self._options, f"using this machine's pool: {kind}")
        content = granted.session
        for number, device in enumerate(content.devices):
            node = content.nodes[device.node]
            total = granted.total_bytes[number] if number < len(granted.total_bytes) else 0
            of = f" of {format_mib(total)}" if total else ""
            where = "this machine" if node.name == socket.gethostname() else node.name
            _say(
                self._options,
                f"GPU {number}: {device.name}, {format_mib(device.share_bytes)}{of},"
                f" on {where} ({node.address})",
            )

    def _tick(self) -> float:
        """Keep the grant fresh, and notice if the pool has gone; returns when to come back."""
        if self._told_loss:
            return _TICK_S
        if self._pool.lost():
            self._told_loss = True
            _say(
                self._options,
                f"the pool has gone: session {self._session} takes no new programs, those that"
                " run may lose their GPU",
            )
        elif time.time() >= self._renew_at_unix:
            self._renew()
        return min(_TICK_S, max(0.1, self._renew_at_unix - time.time()))

    def _renew(self) -> None:
        try:
            self._write(self._pool.renew(self._session))
        except OutboardError as error:
            if self._pool.resumable and error.code == PoolUnreachable.code:
                # Programs that run do not notice, and the session lives for as long as they do.
                if not self._told_silence:
                    _say(self._options, f"{error.message}; trying again, the program goes on")
                self._told_silence = True
                self._renew_at_unix = time.time() + _RETRY_S
                return
            self._told_loss = True
            _say(self._options, f"session {self._session} was not renewed: {error.message}")
        else:
            self._told_silence = False

    def _release(self) -> None:
        """Give everything back; a failure here must not hide the program's exit code."""
        if self._path:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
        try:
            if not self._told_loss:
                self._pool.release(self._session)
        except OutboardError as error:
            if error.code == PoolUnreachable.code:
                what = (
                    "does not answer: its lease will run out" if self._pool.resumable else "ended"
                )
                _say(self._options, f"the pool of session {self._session} {what}")
            elif error.code != "not_found":
                _say(self._options, f"session {self._session} was not released: {error.message}")
        self._pool.close()


def program_text(command: str) -> str:
    """A command as the pool's lists may show it: bounded, and without what moves a cursor."""
    shown = command[:_LONGEST_PROGRAM_TEXT]
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def _would_wait(error: OutboardError, wait_s: float | None, spent_s: float) -> bool:
    """Whether this refusal is only the end of the first, quiet wait."""
    if error.code not in ("waited_too_long", PoolBusy.code):
        return False
    return wait_s is None or wait_s > spent_s


def _of_session(content: SessionFile) -> str:
    if not content.devices:
        return ""
    first = content.devices[0]
    count = len(content.devices)
    what = f"{first.name}, {format_mib(first.share_bytes)}"
    return f": {what}" if count == 1 else f": {count} GPUs, {what} each"


def _say(options: RunOptions, line: str) -> None:
    if not options.quiet:
        try:
            sys.stderr.write(f"outboard: {line}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # stderr is closed: the program matters, not the message
