"""The units of the package `outboard-server`: confined, watched, and restarted under programs.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest

from tests.machines.guest import eventually
from tests.machines.running import Running
from tests.machines.site import Site

_UNITS = ("outboard-controller", "outboard-agent")


@pytest.mark.parametrize(("unit", "tenths"), [("outboard-controller", 25), ("outboard-agent", 45)])
def test_the_unit_is_confined(site: Site, unit: str, tenths: int) -> None:
    done = site.server.sh(f"systemd-analyze security --no-pager --threshold={tenths} {unit}")
    assert done.code == 0, done


@pytest.mark.parametrize("unit", _UNITS)
def test_systemd_watches_that_the_daemon_turns(site: Site, unit: str) -> None:
    def signs() -> bool:
        shown = site.server.sh(f"systemctl show -p WatchdogTimestampMonotonic --value {unit}")
        return shown.out.strip() not in ("", "0")

    eventually(f"{unit} has shown a sign of life", signs)


def test_a_program_runs_through_a_restart_of_both_units(site: Site) -> None:
    site.client.state("active")
    with Running(site.client) as program:
        assert program.add() == "ADDED 1"
        for unit in _UNITS:
            done = site.server.sh(f"systemctl restart {unit}")
            assert done.code == 0, done
        assert program.add() == "ADDED 2"
        assert program.finish() == "PASS"
    eventually("a login shell computes again", site.computes)


def test_controller_and_agent_need_nothing_but_the_packages(site: Site) -> None:
    loaded = site.server.sh(
        "cat /proc/$(systemctl show -p MainPID --value outboard-controller)/maps"
        " | grep -o '/[^ ]*[.]so[^ ]*' | sort -u"
    ).out.split()
    assert any(path.startswith("/usr/lib/outboard/server/") for path in loaded)
    assert not [path for path in loaded if path.startswith(("/work", "/usr/local", "/home"))]


def test_workers_have_users_of_their_own_under_the_unit(site: Site) -> None:
    site.client.state("active")
    with Running(site.client) as program:
        ((pid, uid),) = site.workers().items()
        assert int(uid) > 1879048192
        fields = site.server.sh(f"grep -E '^(Seccomp|NoNewPrivs|CapPrm):' /proc/{pid}/status").out
        assert fields.split() == ["CapPrm:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
        assert not site.server.sh(f"ls /proc/{pid}/root/home /proc/{pid}/root/var").out
        assert site.server.sh("systemctl restart outboard-agent").code == 0
        adopted = "journalctl -b --no-pager -u outboard-agent | grep -q ': adopted'"
        eventually("the worker is adopted", lambda: site.server.sh(adopted).code == 0)
        assert program.add() == "ADDED 1"
        # A program beside it has a worker of the new agent's, with the same user.
        eventually("a login shell computes", site.computes)
        assert program.finish() == "PASS"


def test_the_doctor_finds_the_agent_well(site: Site) -> None:
    found = site.server.json("sh", "-c", "OUTBOARD_AGENT_DRIVER=software outboard doctor --json")
    (isolation,) = [one for one in found["checks"] if one["check"] == "isolation"]
    assert isolation["state"] == "pass", isolation
