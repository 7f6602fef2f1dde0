"""Whatever bytes a client sends, its worker answers, refuses or ends; nothing else is touched.

SPDX-License-Identifier: Apache-2.0

A worker may end with an exit code. It may not be killed by a signal, nor keep the connection open
without an end. A flipped bit may make a command that is valid, so what a worker answers is free.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conversation import (
    Conversation,
    hold_conversation,
    own_hello,
    preface_bytes,
    read_conversation,
    spoiled,
)
from tests.integration.harness import Native, Pool, alive, eventually

pytestmark = pytest.mark.fuzz

SAMPLES = 200
# What the programs beside the samples' session ask for: a whole GPU would wait for it to end.
SMALL = ("-n", "1", "-m", "512")
# Four times what a worker may take to answer or end.
GUARD_S = 20.0


@pytest.fixture(scope="module")
def fuzzed_pool(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    options = {"OUTBOARD_WARM_WORKERS": "3", "SOFTGPU_TIME_LIMIT_S": "2"}
    own = Pool(native, tmp_path_factory.mktemp("fuzzed"), options)
    yield own
    own.stop()


@pytest.fixture(scope="module")
def conversation(native: Native, fuzzed_pool: Pool) -> Conversation:
    """What a small program says to its worker."""
    path = fuzzed_pool.folder / "recording"
    outcome = fuzzed_pool.run(
        native.program("vectorAddDriver", "driver"),
        options=SMALL,
        extra={"OUTBOARD_RECORD": str(path)},
    )
    assert outcome.returncode == 0, outcome.describe()
    return read_conversation(path)


@pytest.fixture(scope="module")
def session(fuzzed_pool: Pool) -> Iterator[dict[str, Any]]:
    """A session that lasts as long as the samples."""
    with fuzzed_pool.running("bash", options=["-n", "1", "-m", "1024"]) as shell:
        assert shell.process.stdin is not None
        shell.process.stdin.write("cat $OUTBOARD_SESSION; echo; echo END\n")
        shell.process.stdin.flush()
        shell.read_until("END")
        yield json.loads(next(line for line in shell.lines if line.startswith("{")))


@pytest.fixture(scope="module")
def log(fuzzed_pool: Pool, conversation: Conversation) -> Path:
    """The pool's log, which says how each worker ended."""
    return Path(fuzzed_pool.json("pool", "status")["log"])


def killed_workers(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    assert lines, "an empty log would prove nothing"
    return [line for line in lines if "killed by signal" in line]


def test_an_unspoiled_replay_is_answered(
    fuzzed_pool: Pool, session: dict[str, Any], conversation: Conversation, log: Path
) -> None:
    frames = [own_hello(conversation.frames[0]), *conversation.frames[1:]]
    preface = preface_bytes(conversation.preface, session)
    assert hold_conversation(session, preface, frames, GUARD_S) > 100
    assert killed_workers(log) == []


def test_spoiled_conversations_end_their_own_worker_at_most(
    native: Native,
    fuzzed_pool: Pool,
    session: dict[str, Any],
    conversation: Conversation,
    log: Path,
) -> None:
    first = int(os.environ.get("OUTBOARD_FUZZ_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"OUTBOARD_FUZZ_SEED={first} repeats this")
    frames = [own_hello(conversation.frames[0]), *conversation.frames[1:]]
    with fuzzed_pool.running(native.program("longLoop"), options=SMALL) as bystander:
        pid = int(bystander.read_until("READY").split()[1])
        answered = 0
        for seed in range(first, first + SAMPLES):
            preface = preface_bytes(conversation.preface, session)
            try:
                answered += hold_conversation(session, preface, spoiled(frames, seed), GUARD_S) > 0
            except TimeoutError:
                pytest.fail(f"the worker hangs on seed {seed}")
            killed = killed_workers(log)
            assert killed == [], f"seed {seed}"
        assert alive(pid), "another session's program was touched"
        # Spoiled after a valid beginning, most conversations get at least a welcome: were every
        # preface refused, nothing would have been tried.
        assert answered > SAMPLES // 2
    eventually(
        "only warm workers are left", lambda: len(fuzzed_pool.workers()) <= 3, guard_s=GUARD_S
    )
    again = fuzzed_pool.run(native.program("matrixMul"), options=SMALL)
    assert again.returncode == 0, again.describe()


@pytest.mark.parametrize("seed", range(20))
def test_spoiled_prefaces_are_refused(
    fuzzed_pool: Pool,
    session: dict[str, Any],
    conversation: Conversation,
    log: Path,
    seed: int,
) -> None:
    source = random.Random(seed)
    content = bytearray(preface_bytes(conversation.preface, session))
    content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    # Truncated half of the time: the agent must not wait for the rest beyond its limit.
    sent = bytes(content[: source.randrange(len(content))]) if seed % 2 else bytes(content)
    hold_conversation(session, sent, [], GUARD_S)
    assert killed_workers(log) == []
    assert fuzzed_pool.json("gpus")["devices"]
