"""Training steps recorded on a real GPU give, command by command, the recorded results.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.harness import HANG_S, ROOT, Native
from tests.recordings.recording import restore

RECORDINGS = sorted((ROOT / "tests/recordings").glob("*.obrec.xz"))


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.name.split(".")[0])
def test_a_recorded_program_is_answered_as_it_was(
    recording: Path, native: Native, tmp_path: Path
) -> None:
    restored = tmp_path / "restored.obrec"
    restored.write_bytes(restore(recording))
    done = subprocess.run(
        [
            native.root / "bin/outboard-replay",
            restored,
            "--driver",
            native.root / "lib/nulldriver/libcuda.so.1",
        ],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 of them other than recorded\n")
