"""`outboard run` from the parsed command line to the program's exit code.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import socket
import sys

from outboard.client.pool import Granted, Pool
from outboard.errors import PoolUnreachable
from outboard.model.session_file import (
    SessionFile,
    find_session_file,
    read_session_file,
)
from outboard.native import NativeFiles, find_native_files
from outboard.run.child import Child
from outboard.run.command import Command, resolve_command
from outboard.run.environment import drop_machine_choices, session_environment
from outboard.run.lease import HeldSession, Wish, obtain
from outboard.run.waiting import WaitLine
from outboard.units import format_mib

_PROBE_TIMEOUT_S = 3.0


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
        dry_run: bool = False,
        as_json: bool = False,
    ) -> None:
        """`wishes` are further fields of a request, which a controller understands.

        With `dry_run` nothing is run or allocated: it is said what would be.
        """
        self.words = words
        self.wishes = wishes or {}
        self.gpus = gpus
        self.share = share
        self.wait_s = wait_s
        self.quiet = quiet
        self.dry_run = dry_run
        self.as_json = as_json

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
        self._pool: Pool

    def run(self) -> int:
        options = self._options
        wish = Wish(
            options.gpus or 1,
            options.share or {},
            options.wait_s,
            options.wishes,
            str(self._command),
        )
        line = WaitLine(quiet=options.quiet)
        try:
            self._pool, granted = obtain(wish, self._say, line.tell)
        finally:
            line.end()
        held = HeldSession(self._pool, granted, self._say)
        try:
            child = Child()
            held.write(granted)
            self._tell(granted)
            environment = session_environment(
                os.environ, held.path, self._native.shim_folder, software=granted.software
            )
            dropped = drop_machine_choices(environment)
            if dropped:
                self._say(
                    f"ignoring {' '.join(dropped)}: it names this machine's GPUs, the session's are"
                    " numbered from 0"
                )
            child.start(self._command, environment)
            return child.wait(held.tick)
        finally:
            held.release()

    def _say(self, line: str) -> None:
        _say(self._options, line)

    def _tell(self, granted: Granted) -> None:
        if self._pool.embedded:
            kind = "software GPU, for trying out" if granted.software else "its own GPUs"
            self._say(f"using this machine's pool: {kind}")
        if granted.token_expires:
            self._say(
                f"your token for this pool expires on {granted.token_expires[:10]}: ask an"
                " administrator for the next one, then: outboard login URL"
            )
        content = granted.session
        for number, device in enumerate(content.devices):
            node = content.nodes[device.node]
            total = granted.total_bytes[number] if number < len(granted.total_bytes) else 0
            of = f" of {format_mib(total)}" if total else ""
            where = "this machine" if node.name == socket.gethostname() else node.name
            self._say(
                f"GPU {number}: {device.name}, {format_mib(device.share_bytes)}{of},"
                f" on {where} ({node.address})"
            )


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
