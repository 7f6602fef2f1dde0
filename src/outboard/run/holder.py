"""Holds a session for as long as nobody releases it: `outboard request`, and Python's `allocate`.

SPDX-License-Identifier: Apache-2.0

A process of its own, so that a session belongs to no shell and to no program's interpreter lock.
It says on its ready pipe, in lines of JSON, how the request stands and what came of it.
`RUNTIME/held/SESSION.json` names it. SIGTERM releases; so does the end of `--with-pid`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
from collections.abc import Callable

from outboard.client.embedded import spawn_detached
from outboard.directories import runtime_directory
from outboard.errors import OutboardError, PoolStartFailed, error_from_problem
from outboard.run.lease import HeldSession, Wish, obtain

_TERMINATORS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Started:
    """A session that a holder holds, as the process that started the holder is told."""

    def __init__(self, record: dict[str, object]) -> None:
        self.session = str(record["session"])
        self.path = str(record["path"])
        self.software = bool(record["software"])


def start_holder(
    wish: Wish,
    on_wait: Callable[[dict[str, object]], None],
    *,
    with_pid: int | None = None,
) -> Started:
    """Start a holder and wait for its session; raises what the pool says.

    `on_wait` is called with how the request stands. With `with_pid` the session ends
    with that process at the latest.
    """
    read_end, write_end = os.pipe()
    document = {
        "gpus": wish.gpus,
        "share": wish.share,
        "wait_s": wish.wait_s,
        "further": wish.further,
        "program": wish.program,
    }
    words = [sys.executable, "-P", "-s", "-m", "outboard.run.holder"]
    words += ["--ready-fd", str(write_end), "--wish", json.dumps(document)]
    if with_pid is not None:
        words += ["--with-pid", str(with_pid)]
    try:
        spawn_detached(words, write_end)
    finally:
        os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        for line in pipe:
            record = json.loads(line)
            if "session" in record:
                return Started(record)
            if "error" in record:
                raise error_from_problem(
                    {**record, "code": record["error"], "detail": record["message"]}, 503
                )
            on_wait(record)
    raise PoolStartFailed("the process that holds the session ended", "ask again")


def held_sessions() -> dict[str, int]:
    """The sessions of this user that holders hold, with the holders' pids, oldest first."""
    folder = _held_folder()
    found = []
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                record = json.load(file)
            pid, start_time = int(record["pid"]), int(record["start_time"])
            age = os.stat(path).st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is being written, or was just removed
        if _start_time(pid) == start_time:
            found.append((age, name.removesuffix(".json"), pid))
        else:
            _unlink(path)  # its holder was killed
    return {name: pid for _, name, pid in sorted(found)}


def release_held(session: str, pid: int) -> None:
    """Let a holder release its session; returns once it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        select.select([pidfd], [], [])
    except ProcessLookupError:
        pass  # it ended by itself
    finally:
        os.close(pidfd)
    _unlink(os.path.join(_held_folder(), f"{session}.json"))


def main() -> int:
    """The holder's process."""
    parser = argparse.ArgumentParser(prog="python -m outboard.run.holder", description=__doc__)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--wish", required=True)
    parser.add_argument("--with-pid", type=int)
    given = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINATORS)
    told = json.loads(given.wish)
    wish = Wish(told["gpus"], told["share"], told["wait_s"], told["further"], told["program"])
    with os.fdopen(given.ready_fd, "w", encoding="utf-8") as ready:

        def tell(record: dict[str, object]) -> None:
            ready.write(json.dumps(record) + "\n")
            ready.flush()

        try:
            pool, granted = obtain(wish, lambda line: tell({"reason": line}), tell)
            held = HeldSession(pool, granted, lambda _line: None)
            held.write(granted)
        except OutboardError as error:
            tell({"error": error.code, "message": error.message, "hint": error.hint})
            return error.exit_code
        except BrokenPipeError:
            return 1  # who asked has gone
        _note(held.session)
        software = granted.software
        tell({"session": held.session, "path": held.path, "software": software})
    _hold(held, given.with_pid)
    return 0


def _hold(held: HeldSession, with_pid: int | None) -> None:
    """Renew until a signal, or the end of the process that the session is for."""
    try:
        watched = [] if with_pid is None else [os.pidfd_open(with_pid)]
    except ProcessLookupError:
        held.release()
        return
    while not held.over:
        pause_s = held.tick()
        # Signals are blocked: they are taken here, between two looks at the process.
        if signal.sigtimedwait(_TERMINATORS, min(pause_s, 0.2) if watched else pause_s):
            break
        if watched and select.select(watched, [], [], 0)[0]:
            break
    held.release()
    _unlink(os.path.join(_held_folder(), f"{held.session}.json"))


def _note(session: str) -> None:
    path = os.path.join(_held_folder(), f"{session}.json")
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "start_time": _start_time(os.getpid())}, file)
    os.rename(f"{path}.new", path)


def _held_folder() -> str:
    path = os.path.join(runtime_directory(), "held")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _start_time(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
