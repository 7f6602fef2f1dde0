"""What an administrator and a user type at a pool with a controller, through the real command line.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from outboard.ledger import subjects, tokens
from outboard.ledger.transaction import Transaction
from tests.unit.conftest import HANG_GUARD_S, eventually
from tests.unit.controller.site import Site, new_site


class Person:
    """Someone with a token of the site, at a terminal."""

    def __init__(self, site: Site, name: str, *scopes: str) -> None:
        def work(tx: Transaction) -> str:
            subjects.ensure_user(tx, name)
            return tokens.create_token(tx, ("user", name), scopes)

        self.environment = {
            **site.environment,
            "OUTBOARD_RUNTIME_DIR": str(site.folder / f"run-{name}"),
            "OUTBOARD_POOL": site.url,
            "OUTBOARD_TOKEN": site.parts.database.write(work),
            "OUTBOARD_AUTHORITY": site.installation.path("authority.pem"),
        }

    @staticmethod
    def command(*words: str) -> list[str]:
        return [sys.executable, "-m", "outboard", *words]

    def fails(self, *words: str) -> str:
        """What is said on stderr by a command that is refused."""
        done = self._run(words)
        assert (done.returncode, done.stdout) == (125, ""), done
        assert all(line.startswith("outboard: ") for line in done.stderr.splitlines())
        return done.stderr

    def __call__(self, *words: str, said: bool = False) -> str:
        """What a command prints that succeeds, or what is said on stderr."""
        done = self._run(words)
        assert done.returncode == 0, done
        return done.stderr if said else done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=HANG_GUARD_S,
            check=False,
        )


def table(text: str) -> list[list[str]]:
    """A table's cells; its columns are at the same place in every line."""
    header, *rows = text.splitlines()
    starts = [match.start() for match in re.finditer(r"(?:(?<=  )|^)\S", header)]
    assert all(row[at - 1] == " " for row in rows for at in starts[1:] if at <= len(row)), text
    ends = [*starts[1:], None]
    return [
        [row[at:end].strip() for at, end in zip(starts, ends, strict=True)]
        for row in (header, *rows)
    ]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with new_site() as made:
        driver = made.folder / "native/lib/softgpu/libcuda.so.1"
        driver.rename(driver.with_name("libcuda.so.580.65.06"))
        driver.symlink_to("libcuda.so.580.65.06")
        made.add_agent("gpu1")
        yield made


@pytest.fixture(scope="module")
def admin(site: Site) -> Person:
    return Person(site, "root", "admin", "read", "use")


@pytest.fixture(scope="module")
def ann(site: Site) -> Person:
    return Person(site, "ann", "use")


def test_users_are_made_changed_and_listed(admin: Person, ann: Person) -> None:
    assert admin("users", "set", "bob", "--group", "vision", "--weight", "2") == "bob is set\n"
    header, *rows = table(admin("users"))
    assert header[:4] == ["NAME", "FULL NAME", "GROUPS", "WEIGHT"]
    assert ["bob", "-", "vision", "2", "yes", "no"] in [row[:6] for row in rows]
    admin("users", "set", "bob", "--disable", "--full-name", "Bob Bobson")
    assert ["bob", "Bob Bobson", "vision", "2", "yes", "yes"] in [
        row[:6] for row in table(admin("users"))
    ]
    assert "which user?" in admin.fails("users", "set")
    assert "name" in admin.fails("users", "set", "no body\r\nX: 1")
    assert "admin" in ann.fails("users", "set", "ann", "--weight", "9")


def test_limits_have_units_and_an_empty_list_says_so(admin: Person) -> None:
    assert admin("limits").startswith("no limits are set; set one: outboard limits set")
    assert admin("limits", "set", "user", "bob", "gpus", "4") == "user bob: gpus 4\n"
    assert admin("limits", "set", "group", "vision", "bytes", "24G").endswith("bytes 24576 MiB\n")
    assert admin("limits", "set", "user", "*", "session_s", "12h").endswith("session_s 12h00m\n")
    assert admin("limits", "set", "user", "bob", "pools", "a", "b") == "user bob: pools a,b\n"
    assert sorted(row[:5] for row in table(admin("limits"))[1:]) == [
        ["group", "vision", "bytes", "24576 MiB", "0 MiB"],
        ["user", "*", "session_s", "12h00m", "-"],
        ["user", "bob", "gpus", "4", "0"],
        ["user", "bob", "pools", "a,b", "-"],
    ]
    for kind, name, limit in (
        ("user", "bob", "gpus"),
        ("user", "bob", "pools"),
        ("group", "vision", "bytes"),
        ("user", "*", "session_s"),
    ):
        said = admin("limits", "delete", kind, name, limit)
        assert said == f"{kind} {name}: {limit} without a limit of its own\n"
    assert admin("limits").startswith("no limits are set")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set", "user", "bob", "speed", "4"], "speed: none of gpus, bytes, sessions"),
        (["set", "team", "bob", "gpus", "4"], "team: none of user, group, host"),
        (["set", "user", "bob"], "which limit?"),
        (["set", "user", "bob", "gpus"], "one value is needed"),
        (["set", "user", "bob", "gpus", "many"], "not a number"),
        (["set", "user", "bob", "bytes", "lots"], "not an amount of memory"),
        (["set", "user", "bob", "idle_s", "soon"], "not a duration"),
    ],
)
def test_a_limit_that_is_none_is_refused_by_name(
    admin: Person, words: list[str], said: str
) -> None:
    assert said in admin.fails("limits", *words)


def test_a_limit_that_is_reached_is_named(admin: Person, ann: Person) -> None:
    admin("limits", "set", "user", "ann", "gpus", "0")
    assert "the limit on GPUs at once of user ann is 0" in ann.fails("request", "-m", "100")
    admin("limits", "delete", "user", "ann", "gpus")


def test_usage_is_what_was_held(admin: Person, ann: Person) -> None:
    assert ann("usage", "--until", "2020-01-02", "--since", "2020-01-01").startswith(
        "nothing was held from 20"
    )
    ann("run", "-q", "-m", "100", "true")
    header, *rows = table(admin("usage", "--since", "1h", "--by", "user,node"))
    assert header[:4] == ["USER", "NODE", "GPU-HOURS", "GIB-HOURS"]
    assert ["ann", "gpu1"] in [row[:2] for row in rows]
    exact = admin.json("usage", "--by", "user")["held"]
    assert all(line["byte_us"] > 0 for line in exact)
    csv = admin("usage", "--by", "user", "--format", "csv").splitlines()
    assert csv[0].startswith("user,byte_us,gpu_ppm_us")
    assert "--since yesterday: not a time" in ann.fails("usage", "--since", "yesterday")
    assert "cannot be grouped by user, moon" in ann.fails("usage", "--by", "user,moon")


def test_a_pool_without_client_machines_says_so(admin: Person) -> None:
    assert admin("hosts").startswith("no client machine has joined; for one: outboard tokens")


def test_tokens_are_shown_once_listed_and_revoked(admin: Person, ann: Person) -> None:
    done = subprocess.run(
        admin.command("tokens", "create", "--user", "cy", "--lifetime", "90d", "--note", "laptop"),
        env=admin.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"ob_[0-9a-f]{16}_[0-9a-f]{64}_[0-9a-f]{16}\n", done.stdout)
    assert "shown only now" in done.stderr
    assert "outboard login https://127.0.0.1:" in done.stderr
    identity = done.stdout.split("_")[1]
    row = next(row for row in table(admin("tokens")) if row[0] == identity)
    assert row[1:4] == ["user", "cy", "use"]
    assert row[5:] == ["-", "laptop"]
    assert done.stdout.split("_")[2] not in admin("tokens", "list", "--json")
    cy = Person.__new__(Person)
    cy.environment = {**ann.environment, "OUTBOARD_TOKEN": done.stdout.strip()}
    assert cy("gpus")
    assert "expires" not in cy("run", "-m", "100", "true", said=True)
    soon = admin("tokens", "create", "--user", "cy", "--lifetime", "13d").strip()
    cy.environment["OUTBOARD_TOKEN"] = soon
    told = cy("run", "-m", "100", "true", said=True)
    assert re.search(r"outboard: your token for this pool expires on \d{4}-\d\d-\d\d: ask", told)
    assert admin("tokens", "revoke", identity) == f"{identity} is revoked\n"
    cy.environment["OUTBOARD_TOKEN"] = done.stdout.strip()
    assert "outboard login" in cy.fails("gpus")
    assert "there is no token" in admin.fails("tokens", "revoke", "0" * 16)
    assert "whose token?" in admin.fails("tokens", "create")
    assert [one["subject"] for one in ann.json("tokens")["tokens"]] == ["ann"]


def test_a_server_is_cordoned_drained_and_resumed(admin: Person, ann: Person) -> None:
    def state() -> list[str]:
        (row,) = table(admin("nodes"))[1:]
        return [row[0], row[1], row[2], row[-1]]

    assert state() == ["gpu1", "ready", "ok", "-"]
    assert admin("nodes", "cordon", "gpu1", "--reason", "testing") == "gpu1: cordoned\n"
    assert state() == ["gpu1", "cordoned", "ok", "testing"]
    refused = ann.fails("run", "--no-wait", "-m", "100", "true")
    assert "gpu1: cordoned: testing" in refused
    assert admin("drain", "gpu1", "--deadline", "1h") == "gpu1: draining\n"
    assert state()[:2] == ["gpu1", "draining"]
    assert admin("nodes", "resume", "gpu1") == "gpu1: ready\n"
    assert state() == ["gpu1", "ready", "ok", "-"]
    assert "there is no node gpu9" in admin.fails("nodes", "drain", "gpu9")
    assert "admin" in ann.fails("cordon", "gpu1")
    assert "which server?" in admin.fails("nodes", "remove")


def test_every_filter_chooses(admin: Person, ann: Person) -> None:
    said = admin("nodes", "set", "gpu1", "--label", "rack=a7", "--label", "site=north")
    assert said == "gpu1: in pool default, labels: rack=a7, site=north\n"
    good = [
        *("server.addr=127.0.0.1", f"server.hostname={os.uname().nodename}", "server.name=gpu1"),
        *("server.cuda-version>=12.4", "server.cuda-version<=13.0", "server.driver-version>=580"),
        *("server.driver-version!=575.57.08", "device.id=GPU-fake-0", "device.name=Fake GPU"),
        *("device.memory>=1G", "device.memory<=1028", "label.rack=a7", "label.gone!=yes"),
    ]
    every = [word for text in good for word in ("--filter", text)]
    assert ann.json("run", "--dry-run", *every)["fits"] is True
    opposite = {"=": "!=", "!=": "=", ">=": "<=", "<=": ">="}
    for text in good:
        key, operator, value = re.split("(!=|>=|<=|=)", text)
        if value == "13.0" or value == "1028":
            value = {"13.0": "13.1", "1028": "1029"}[value]  # what is equal meets both
        said = ann.fails("run", "--dry-run", "--filter", f"{key}{opposite[operator]}{value}")
        assert "0 of the pool's 1 GPUs are " in said, text
    admin("nodes", "set", "gpu1", "--label", "rack=", "--label", "site=")
    assert admin.json("nodes")["nodes"][0]["labels"] == {}


def test_a_server_is_asked_for_in_its_pool(admin: Person, ann: Person) -> None:
    admin("nodes", "set", "gpu1", "--pool", "research")
    try:
        assert "0 of the pool's 1 GPUs are in the default pool" in ann.fails("run", "true")
        assert ann.json("run", "--dry-run", "--pool", "research")["fits"] is True
        admin("limits", "set", "user", "ann", "pools", "default")
        refused = ann.fails("run", "--pool", "research", "true")
        assert "user ann may use default, not research" in refused
    finally:
        admin("limits", "delete", "user", "ann", "pools")
        admin("nodes", "set", "gpu1", "--pool", "default")
    assert "admin" in ann.fails("nodes", "set", "gpu1", "--pool", "research")
    assert "what of it?" in admin.fails("nodes", "set", "gpu1")


def test_a_server_that_has_joined_is_not_well_before_its_agent_says_so(
    site: Site, admin: Person
) -> None:
    assert site.join("gpu2", site.token("enrol", "agent")).returncode == 0
    row = next(row for row in table(admin("nodes")) if row[0] == "gpu2")
    assert row[2:4] == ["N/A", "0"]
    assert row[-1] == "its agent has not reported yet: outboard agent, there"
    assert admin("nodes", "remove", "gpu2") == "gpu2: removed\n"


def test_who_waits_or_runs_is_listed_and_explained(admin: Person, ann: Person) -> None:
    assert ann("queue") == "nobody waits\n"
    session = admin("request", "-m", "800").strip()
    waiting = subprocess.Popen(
        ann.command("run", "-n", "1", "-m", "900", "true"),
        env=ann.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: bool(ann.json("queue")["waiting"]), "the request waits")
        header, row = table(ann("queue"))
        assert header[:5] == ["POSITION", "REQUEST", "USER", "GPUS", "OF EACH"]
        assert (row[0], row[2:6], row[7]) == ("1", ["ann", "1", "900 MiB", "0"], "N/A")
        explained = ann("explain", row[1])
        assert f"{row[1]}: waiting" in explained
        assert re.search(r"gpu1 GPU 0: \d+ MiB are free, 900 MiB are asked for", explained)
        assert ann.json("explain", row[1])["state"] == "waiting"
        assert "there is no request" in ann.fails("explain", "0" * 32)
        assert "32 hexadecimal digits" in ann.fails("explain", "../../v1/users")
        placed = admin("explain", admin.json("sessions")["sessions"][0]["id"])
        assert re.search(r"granted\n  granted after [\d.]+ s: session s-[0-9a-f]+\n", placed)
        assert re.search(r"\n  gpu1 GPU 0: chosen: broken up, \d+ MiB left over\n", placed)
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert said.startswith("outboard: waiting, number 1 in the queue: at most "), said
    finally:
        admin("release", session)
    _, rest = waiting.communicate(timeout=HANG_GUARD_S)
    assert (waiting.returncode, "outboard: GPU 0: Fake GPU, 900 MiB" in rest) == (0, True), rest


def test_a_terminal_shows_one_live_line_that_goes_when_the_wait_is_over(
    admin: Person, ann: Person
) -> None:
    session = admin("request", "-m", "800").strip()
    terminal, end = pty.openpty()
    command = ann.command("run", "-n", "1", "-m", "900", "echo", "DONE")
    waiting = subprocess.Popen(command, env=ann.environment, stdin=end, stdout=end, stderr=end)
    os.close(end)
    try:
        before = read_until(terminal, b"number 1 in the queue")
        assert before.count(b"\n") == 0
        assert before.startswith(b"\r\x1b[Koutboard: waiting, number 1 in the queue: ")
    finally:
        admin("release", session)
    rest = read_until(terminal, b"DONE")
    assert waiting.wait(HANG_GUARD_S) == 0
    os.close(terminal)
    # The line was taken away before anything else was said.
    assert b"\r\x1b[K" in rest.partition(b"outboard: GPU 0")[0]


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What a terminal shows up to the wanted text."""
    deadline, seen = time.monotonic() + HANG_GUARD_S, b""
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096)
    return seen
