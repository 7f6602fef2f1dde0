"""`outboard smi`: GPUs with who uses them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import getpass
import json

from outboard.cli.smi import with_sessions
from tests.unit.conftest import Outboard


def test_who_uses_a_gpu_and_how_much(outboard: Outboard) -> None:
    launcher = outboard.start("run", "-m", "100", *outboard.program, "take 1048576", "wait")
    assert launcher.stdout is not None
    launcher.stdout.readline()
    assert launcher.stdout.readline() == "ok\n"
    shown = outboard("smi").stdout
    header, device, session = shown.splitlines()
    assert header.split()[:4] == ["SERVER", "GPU", "NAME", "STATE"], shown
    assert " ".join(device.split()[4:]) == "ready - - 100 of 1024 MiB 5 MiB -", shown
    assert session.split()[1:6] == [getpass.getuser(), "100", "MiB", "5", "MiB"], shown
    (told,) = json.loads(outboard("smi", "--json").stdout)["devices"]
    (one,) = told["sessions"]
    assert (one["granted_bytes"], one["used_bytes"]) == (100 << 20, 5 << 20)
    assert (told["used_bytes"], told["others_bytes"]) == (5 << 20, 0)
    launcher.terminate()
    launcher.communicate()


def test_a_server_that_does_not_exist_is_said(outboard: Outboard) -> None:
    done = outboard("smi", "--server", "gpu9")
    assert (done.returncode, "no GPU is on gpu9" in done.stderr) == (125, True)


def test_what_belongs_to_others_is_counted_and_not_named() -> None:
    device = {"node": "n", "index": 0, "granted_bytes": 300}
    held = {"node": "n", "index": 0, "share_bytes": 100, "held_bytes": 7}
    elsewhere = {"node": "m", "index": 0, "share_bytes": 50, "held_bytes": 7}
    session = {"id": "s-1", "user": "ann", "uid": 0, "pid": 1, "program": "x"}
    told = with_sessions(device, [{**session, "devices": [held, elsewhere]}])
    assert (told["others_bytes"], told["used_bytes"]) == (200, None)
    assert [one["granted_bytes"] for one in told["sessions"]] == [100]
    device = {**device, "granted_bytes": 100}
    unknown = {**held, "held_bytes": None}
    assert with_sessions(device, [{**session, "devices": [held]}])["used_bytes"] == 7
    assert with_sessions(device, [{**session, "devices": [unknown]}])["used_bytes"] is None
