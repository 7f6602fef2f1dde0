"""Processes of a session share device memory; another session's handles are worth nothing.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

from tests.integration.harness import Native, Pool

INVALID_VALUE, MAP_FAILED, NOT_SUPPORTED = 1, 205, 801
# In a coprocess: what `said NAME` waits for is a line that begins so, `tell` lets it go on.
SHELL = """
said() { while read -r line <&"$1"; do [[ $line == "$2"* ]] && return; done; exit 9; }
tell() { echo >&"$1"; }
"""


def test_handles_are_worth_nothing_in_another_session_or_changed(
    native: Native, pool: Pool, tmp_path: Path
) -> None:
    program, handles = native.program("sharedStrangers", "driver"), tmp_path / "handles"
    guest = f"{program} --role guest --file {handles}"
    inside = f"""{SHELL}
    coproc OWNER {{ {program} --role owner --mib 8 --file {handles}; }}
    said ${{OWNER[0]}} SHARED
    for part in magic kind device worker token; do {guest} --damage $part; done
    {guest}
    echo INSIDE
    read -r
    tell ${{OWNER[1]}}
    wait "$OWNER_PID"; echo "owner: $?"
    """
    options = ["-n", "1", "-p", "0.4"]
    with pool.running("bash", "-c", inside, options=options) as session:
        session.read_until("INSIDE")
        stranger = pool.run(program, "--role", "guest", "--file", handles, options=options)
        owner = session.finish("\n")
    assert stranger.returncode == 0, stranger.describe()
    refused = f"memory {INVALID_VALUE}, event {MAP_FAILED}"
    assert f"nothing: {refused}" in stranger.stdout
    for part in ("magic", "kind", "worker", "token"):
        assert f"{part}: {refused}" in owner.stdout
    assert f"device: memory {NOT_SUPPORTED}, event {NOT_SUPPORTED}" in owner.stdout
    assert "nothing: memory 0, event 0" in owner.stdout
    assert "owner: 0" in owner.stdout, owner.describe()


def test_memory_outlives_its_owner_and_counts_once(
    native: Native, pool: Pool, tmp_path: Path
) -> None:
    program, handles = native.program("sharedStrangers", "driver"), tmp_path / "handles"
    hold = f"{native.program('memoryLimit')} --hold-mib 400 </dev/null"
    script = f"""{SHELL}
    exec 2>&1
    coproc OWNER {{ exec {program} --role owner --mib 200 --file {handles}; }}
    owner=$OWNER_PID
    said ${{OWNER[0]}} SHARED
    exec {{from}}<&${{OWNER[0]}} {{to}}>&${{OWNER[1]}}
    mkfifo {tmp_path}/in {tmp_path}/out
    {program} --role guest --mib 200 --file {handles} <{tmp_path}/in >{tmp_path}/out &
    guest=$!
    exec {{tell}}>{tmp_path}/in {{hear}}<{tmp_path}/out
    said $hear OPENED
    kill -KILL $owner; wait $owner; echo "owner: $?"
    tell $tell
    said $hear COUNTED
    {hold}; echo "while held: $?"
    tell $tell
    wait $guest; echo "guest: $?"
    {hold}; echo "afterwards: $?"
    """
    outcome = pool.run("bash", "-c", script, options=["-n", "1", "-m", "512"])
    for said in ("owner: 137", "while held: 1", "guest: 0", "afterwards: 0"):
        assert said in outcome.stdout, outcome.describe()
