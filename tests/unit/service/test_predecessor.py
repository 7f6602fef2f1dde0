"""A unit of the predecessor becomes a service that holds the same, and every change is told.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest

from outboard.errors import UsageError
from outboard.service.predecessor import import_unit, note_script

UNIT = """\
[Unit]
Description=Start Bitfusion Client Environment
[Service]
{user}
ExecStart=/usr/bin/bitfusion run {options} -- bash /opt/bitfusion/bitfusion-client-env
ExecStopPost=/bin/rm /etc/profile.d/gpus.sh
#ExecStopPost=/bin/rm /home/<username>/gpus.sh
[Install]
WantedBy=multi-user.target
"""


def unit(options: str, user: str = "#User=<username>") -> str:
    return UNIT.format(options=options, user=user)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-n 1", ["-n", "1"]),
        ("-n 2 -p 0.314", ["-n", "2", "-p", "0.314"]),
        ("-n 1 -m 4000", ["-n", "1", "-m", "4000"]),
        ("-p 0.5", ["-n", "1", "-p", "0.5"]),
        ("--num_gpus=1 --partial=0.05", ["-n", "1", "-p", "0.05"]),
    ],
)
def test_the_request_is_kept(options: str, words: list[str]) -> None:
    assert import_unit(unit(options)).words == words


def test_a_service_of_one_user_stays_his() -> None:
    made = import_unit(unit("-n 1", "User=ada\nGroup=ml"))
    assert made.words == ["-n", "1", "--for-user", "ada"]
    assert any(change.startswith("Group=ml") for change in made.changes)


def test_what_is_left_out_is_said() -> None:
    made = import_unit(unit("-n 1 --server_list 10.0.0.1:56001"))
    assert made.words == ["-n", "1"]
    assert "--server_list 10.0.0.1:56001: left out, the pool decides by itself" in made.changes
    assert any("ExecStopPost" in change for change in made.changes)


def test_the_capture_scripts_file_is_named_so_that_it_goes() -> None:
    made = import_unit(unit("-n 1"))
    assert made.script == "/opt/bitfusion/bitfusion-client-env"
    note_script("#!/bin/bash\nBITFUSIONTARGFILE=/etc/profile.d/gpus.sh\n", made)
    assert made.changes[-1].startswith("/etc/profile.d/gpus.sh: remove it")


@pytest.mark.parametrize("text", ["", "[Service]\nExecStart=/bin/true\n", "ExecStart='"])
def test_another_unit_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        import_unit(text)
