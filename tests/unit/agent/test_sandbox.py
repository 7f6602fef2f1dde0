"""What workers get when the agent is root: a user of their own, and nobody's files.

SPDX-License-Identifier: Apache-2.0

In place of a worker runs a script of the system's Python, which says what it can do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outboard.agent.isolation import spawn
from outboard.agent.sandbox import DEFAULT_USERS, Sandbox, Users, prepare
from outboard.agent.view import SCRATCH_BYTES
from outboard.errors import ConfigurationError

_PYTHON = "/usr/bin/python3"
_WORKER = "/usr/bin/true"
_SCRIPT = """
import json, os
def outcome(call, *arguments):
    try:
        call(*arguments)
        return "done"
    except OSError as error:
        return type(error).__name__
print(json.dumps({
    "ids": os.getresuid() + os.getresgid(), "groups": os.getgroups(),
    "root": sorted(os.listdir("/")),
    "devices": sorted(os.listdir("/dev")), "cwd": os.getcwd(),
    "shadow": outcome(open, "/etc/shadow"), "home": outcome(os.listdir, "/home"),
    "write usr": outcome(open, "/usr/x", "w"), "write root": outcome(open, "/x", "w"),
    "write tmp": outcome(open, "/tmp/x", "w"), "write shm": outcome(open, "/dev/shm/x", "w"),
    "signal": outcome(os.kill, OTHER, 0), "see": outcome(os.listdir, "/proc/OTHER"),
    "calls": outcome(os.stat, "CALLS"), "write calls": outcome(open, "CALLS/x", "w"),
    "self": outcome(os.listdir, "/proc/self/fd"), "become root": outcome(os.setuid, 0),
    "mount": outcome(os.chroot, "/tmp"),
}))
"""

# A container's root may lack the right to mount.
_MAY = os.geteuid() == 0 and not subprocess.call(["unshare", "--mount", "true"])
as_root = pytest.mark.skipif(
    not (_MAY and os.access(_PYTHON, os.X_OK)), reason="an agent that is root does this"
)


def made(folder: Path, users: str = DEFAULT_USERS) -> Sandbox:
    calls = folder / "calls"
    calls.mkdir()
    calls.chmod(0o711)
    return prepare("auto", users, _WORKER, _WORKER, str(folder / "view"), [str(calls)])


def said_inside(sandbox: Sandbox, uid: int, other: int, calls: Path) -> Any:
    """What the script says inside the sandbox, with `other` as another session's worker."""
    ours, theirs = os.pipe()
    script = _SCRIPT.replace("OTHER", str(other)).replace("CALLS", str(calls))
    words = [_PYTHON, "-IS", "-c", script]
    pid = spawn(words, {}, None, theirs, lambda: sandbox.enter(uid))
    os.close(theirs)
    with os.fdopen(ours, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    assert text.startswith("{"), text
    return json.loads(text)


@as_root
def test_a_worker_has_a_user_of_its_own_and_sees_nothing_of_others(tmp_path: Path) -> None:
    sandbox = made(tmp_path)
    assert sandbox.lacks == []
    assert sandbox.users is not None
    assert sandbox.worker_options == ["--own-files"]
    uid, gid = sandbox.take(), sandbox.users.group
    assert uid is not None
    other = subprocess.Popen(["sleep", "600"], user=sandbox.users.take())
    try:
        before = os.listdir("/")
        for _ in range(2):  # a second worker of the session sees what the first one does
            said = said_inside(sandbox, uid, other.pid, tmp_path / "calls")
        # What workers of one user share is theirs.
        shared = os.listdir(tmp_path / f"view/scratch/{uid}/tmp")
    finally:
        other.kill()
        other.wait()
        sandbox.release(uid)
    assert "x" in shared
    assert said["ids"] == [uid] * 3 + [gid] * 3
    assert {"home", "root", "var", "srv"}.isdisjoint(said["root"])
    assert {"null", "shm", "urandom", "zero"} <= set(said["devices"])
    assert {"kmsg", "mem", "console", "fuse"}.isdisjoint(said["devices"])
    assert said["cwd"] == "/"
    assert said["shadow"] == said["home"] == "FileNotFoundError"
    assert said["write usr"] in ("PermissionError", "OSError")
    assert said["write root"] in ("PermissionError", "OSError")
    assert said["write calls"] in ("PermissionError", "OSError")
    assert said["write tmp"] == said["write shm"] == said["self"] == said["calls"] == "done"
    assert said["signal"] == said["become root"] == said["mount"] == "PermissionError"
    assert said["see"] == "FileNotFoundError"
    # Nothing of it is left, or was ever seen, outside.
    assert os.listdir("/") == before
    assert os.listdir(tmp_path / "view/root") == os.listdir(tmp_path / "view/scratch") == []


@as_root
def test_compiled_code_is_kept_for_the_programs_of_one_session(tmp_path: Path) -> None:
    sandbox = made(tmp_path)
    environment = sandbox.environment(str(tmp_path / "of all sessions"))
    assert int(environment["CUDA_CACHE_MAXSIZE"]) < SCRATCH_BYTES
    one, other = sandbox.take(), sandbox.take()
    found = []
    for uid in (one, one, other):
        ours, theirs = os.pipe()
        script = "import os; d = os.environ['CUDA_CACHE_PATH']; print(os.path.isdir(d), flush=True)"
        words = [_PYTHON, "-IS", "-c", f"{script}; os.makedirs(d, exist_ok=True)"]
        pid = spawn(words, environment, None, theirs, lambda uid=uid: sandbox.enter(uid))  # type: ignore[misc]
        os.close(theirs)
        with os.fdopen(ours, encoding="utf-8") as pipe:
            found.append(pipe.read())
        assert os.waitpid(pid, 0)[1] == 0
    sandbox.release(one)
    sandbox.release(other)
    assert found == ["False\n", "True\n", "False\n"]
    # Without file systems of their own, no folder is a session's alone.
    shared = Sandbox(sandbox.users).environment(str(tmp_path))
    assert "CUDA_CACHE_PATH" not in shared and shared["CUDA_CACHE_DISABLE"] == "1"


@as_root
def test_a_session_keeps_its_user_over_a_restart_of_the_agent(tmp_path: Path) -> None:
    uid = made(tmp_path).users.take()  # type: ignore[union-attr]
    (tmp_path / "calls").rmdir()
    sandbox = made(tmp_path)
    assert sandbox.take(uid) == uid
    said = said_inside(sandbox, uid, os.getpid(), tmp_path / "calls")
    sandbox.release(uid)
    assert said["ids"][0] == uid


@as_root
def test_a_worker_that_cannot_live_inside_lives_outside_and_that_is_said(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\necho a reason >&2\n[ $(id -u) = 0 ]\n")
    worker.chmod(0o755)
    sandbox = prepare("auto", DEFAULT_USERS, str(worker), _WORKER, str(tmp_path / "view"))
    assert sandbox.users is None
    assert sandbox.worker_options == []
    assert sandbox.lacks[0] == "workers run as root"
    assert sandbox.lacks[-1].startswith("because: ")


def test_a_worker_that_never_starts_confined_is_not_confined(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\necho no driver can live here >&2\nexit 1\n")
    worker.chmod(0o755)
    sandbox = prepare("auto", DEFAULT_USERS, str(worker), _WORKER, str(tmp_path / "view"))
    assert sandbox.worker_options == ["--unconfined"]
    assert sandbox.lacks == ["all of it", "because: no driver can live here"]


@as_root
def test_no_two_have_one_user_at_a_time(tmp_path: Path) -> None:
    first = int(DEFAULT_USERS.partition("-")[0]) + 40000
    users = Users(f"{first}-{first + 16}")
    stranger = subprocess.Popen(["sleep", "600"], user=first + 5)
    try:
        taken = [users.take() for _ in range(15)]
        assert sorted(taken) == [uid for uid in range(first + 1, first + 17) if uid != first + 5]
        with pytest.raises(OSError, match="all 16 user ids of workers are taken"):
            users.take()
        users.release(first + 9)
        assert users.take() == first + 9
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "1000", "2000-1990", "0-65535", "200000-200010", "a-b"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Users(text)


def test_isolation_may_be_switched_off_and_says_so(tmp_path: Path) -> None:
    sandbox = prepare("off", DEFAULT_USERS, sys.executable, sys.executable, str(tmp_path / "view"))
    assert sandbox.worker_options == ["--unconfined"]
    assert sandbox.lacks == ["all of it: isolation = off"]
    with pytest.raises(ConfigurationError, match="isolation is 'on'"):
        prepare("on", DEFAULT_USERS, sys.executable, sys.executable, str(tmp_path / "view"))
