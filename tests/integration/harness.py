"""Running programs directly and through Outboard, and looking at the pool's processes.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
# No program of the suite takes longer than a few seconds; whatever reaches this hangs.
HANG_S = 120.0
SITE_PACKAGES = Path(sys.prefix) / f"lib/python3.{sys.version_info.minor}/site-packages"

T = TypeVar("T")


class Hang(AssertionError):
    """Something did not happen within the hang guard."""


def eventually(what: str, look: Callable[[], T | None], guard_s: float = 60.0) -> T:
    """The first truthy thing that `look` returns; raises `Hang` if there is none in time."""
    started = time.monotonic()
    pause_s = 0.002
    while True:
        found = look()
        elapsed_s = time.monotonic() - started
        if found:
            print(f"{what}: after {elapsed_s:.3f} s")
            return found
        if elapsed_s > guard_s:
            raise Hang(f"{what}: not within {guard_s:.0f} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


@dataclass(frozen=True)
class Native:
    """What was built: libraries, worker, programs."""

    root: Path

    @property
    def softgpu(self) -> Path:
        return self.root / "lib/softgpu"

    @property
    def shim(self) -> Path:
        return self.root / "lib/shim"

    @property
    def worker(self) -> Path:
        return self.root / "bin/outboard-worker"

    def program(self, name: str, kind: str = "static") -> Path:
        return self.root / "programs" / kind / name


@dataclass(frozen=True)
class Outcome:
    """How a program ended, what it printed, and the result buffers that it wrote."""

    returncode: int
    stdout: str
    stderr: str
    results: bytes

    def describe(self) -> str:
        return f"exit {self.returncode}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def expect_same(actual: bytes, expected: bytes) -> None:
    """Fails with where two buffers differ: pytest's own account of megabytes would take hours."""
    if actual == expected:
        return
    pairs = enumerate(zip(actual, expected, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(actual), len(expected)))
    raise AssertionError(
        f"results differ from byte {at} on: {len(actual)} bytes, {len(expected)} are expected"
    )


def clean_environment(home: Path) -> dict[str, str]:
    """An environment without what would send a program elsewhere."""
    dropped = ("OUTBOARD_", "CUDA_", "CUPY_", "NUMBA_", "LD_", "PYTEST_", "XDG_", "SOFTGPU_")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(dropped)
    }
    kept = {name: os.environ[name] for name in ("OUTBOARD_ISOLATION",) if name in os.environ}
    return environment | kept | {"HOME": str(home)}


def run_program(
    command: Sequence[str | Path],
    environment: dict[str, str],
    results: Path | None = None,
    stdin: str | None = None,
) -> Outcome:
    """Run to the end, or raise `Hang` with what was printed so far."""
    words = [str(word) for word in command]
    with subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, errors = process.communicate(stdin, timeout=HANG_S)
        except subprocess.TimeoutExpired as expired:
            end_tree(process)
            output, errors = process.communicate(timeout=HANG_S)
            raise Hang(f"{words} hangs; it printed {output!r}, {errors!r}") from expired
    written = results.read_bytes() if results is not None and results.exists() else b""
    return Outcome(process.returncode, output, errors, written)


class Running:
    """A program that goes on while the test looks at it."""

    def __init__(self, command: Sequence[str | Path], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        # Reading a line has no time limit of its own: a program that hangs is ended, and its end
        # of file is what the reader sees.
        self._guard = threading.Timer(HANG_S, self.process.kill)
        self._guard.daemon = True
        self._guard.start()

    def read_until(self, start: str) -> str:
        """The first line that begins with `start`; the lines before it are kept in `lines`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return line.rstrip("\n")
        _, errors = self.process.communicate(timeout=HANG_S)
        raise AssertionError(
            f"no line begins with {start!r}; exit {self.process.returncode}\n"
            + "\n".join(self.lines)
            + f"\n--- stderr\n{errors}"
        )

    def finish(self, stdin: str = "") -> Outcome:
        """Wait for the end, giving it what is left of its input."""
        try:
            output, errors = self.process.communicate(stdin, timeout=HANG_S)
        except subprocess.TimeoutExpired as expired:
            end_tree(self.process)
            self.process.communicate(timeout=HANG_S)
            raise Hang(f"{self.process.args!r} hangs") from expired
        return Outcome(self.process.returncode, "\n".join([*self.lines, output]), errors, b"")

    def stop(self) -> None:
        """End it however it is; for cleaning up after a test that failed."""
        self._guard.cancel()
        if self.process.poll() is None:
            end_tree(self.process)
        self.process.communicate(timeout=HANG_S)


@dataclass
class Pool:
    """An embedded pool of its own, in a runtime folder of its own."""

    native: Native
    folder: Path
    options: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.folder) | {
            "OUTBOARD_RUNTIME_DIR": str(self.folder / "run"),
            "OUTBOARD_NATIVE_DIR": str(self.native.root),
            "OUTBOARD_DRIVER": "software",
            **self.options,
        }

    def command(self, *words: str | Path) -> list[str | Path]:
        """`outboard` with these words."""
        return [Path(sys.prefix) / "bin/outboard", *words]

    def run(
        self,
        *command: str | Path,
        options: Sequence[str] = ("-n", "1"),
        results: Path | None = None,
        stdin: str | None = None,
        extra: dict[str, str] | None = None,
    ) -> Outcome:
        """`outboard run OPTIONS -- COMMAND` to its end."""
        return run_program(
            self.command("run", *options, "--", *command),
            self.environment | (extra or {}),
            results,
            stdin,
        )

    @contextmanager
    def running(
        self, *command: str | Path, options: Sequence[str] = ("-n", "1")
    ) -> Iterator[Running]:
        """`outboard run OPTIONS -- COMMAND`, going on while the block runs."""
        program = Running(self.command("run", *options, "--", *command), self.environment)
        try:
            yield program
        finally:
            program.stop()

    def call(self, *words: str) -> Outcome:
        """Another subcommand of `outboard`."""
        return run_program(self.command(*words), self.environment)

    def json(self, *words: str) -> Any:
        outcome = self.call(*words, "--json")
        assert outcome.returncode == 0, outcome.describe()
        return json.loads(outcome.stdout)

    def total_bytes(self) -> int:
        """Memory of the pool's first device."""
        return int(self.json("gpus")["devices"][0]["total_bytes"])

    def pid(self) -> int:
        """The pool's process, as the kernel names its socket's other end; 0 if none listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(self.folder / "run/pool.sock"))
            except OSError:
                return 0
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
            )
        return int(struct.unpack("3i", credentials)[0])

    def workers(self) -> set[int]:
        """Worker processes that are alive: children of the pool that are no zombies."""
        return {pid for pid in descendants(self.pid()) if runs(pid, "outboard-worker")}

    def stop(self) -> None:
        pid = self.pid()
        if pid == 0:
            return
        self.call("pool", "stop", "--force")
        eventually("the pool has ended", lambda: not alive(pid))


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def runs(pid: int, name: str) -> bool:
    """Whether the living process's first word is a program of that name."""
    try:
        first = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False
    return alive(pid) and Path(first.decode()).name == name


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    found: set[int] = set()
    pending = [pid] if pid else []
    while pending:
        for listing in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            try:
                children = {int(child) for child in listing.read_text().split()}
            except OSError:
                continue
            pending.extend(children - found)
            found |= children
    return found


def kill(pid: int) -> None:
    """End a process that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end_tree(process: subprocess.Popen[str]) -> None:
    """End a launcher with its program, which would outlive it, hold the pipes and its GPU."""
    for pid in descendants(process.pid):
        kill(pid)
    process.kill()


class Direct:
    """Programs on the software GPU without anything between: what Outboard is compared with.

    The programs are those of `$OUTBOARD_REFERENCE_DIR` where that is set: a sanitizer looks at
    Outboard, not at how a program and the software GPU get along.
    """

    def __init__(self, native: Native, folder: Path) -> None:
        self._native = native
        self._folder = folder

    def run(
        self,
        *command: str | Path,
        results: Path | None = None,
        extra: dict[str, str] | None = None,
    ) -> Outcome:
        environment = clean_environment(self._folder) | {
            "LD_LIBRARY_PATH": str(self._native.softgpu),
            # What the launcher sets for a device that runs PTX alone.
            "CUPY_COMPILE_WITH_PTX": "1",
        }
        words = [self._plain(word) for word in command]
        return run_program(words, environment | (extra or {}), results)

    def _plain(self, word: str | Path) -> str | Path:
        reference = os.environ.get("OUTBOARD_REFERENCE_DIR")
        if reference is None or not Path(word).is_relative_to(self._native.root):
            return word
        return Path(reference) / Path(word).relative_to(self._native.root)
