"""A GPU that breaks is placed on no more, with the reason, until it is well again.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import signal
import ssl
import urllib.request
from collections.abc import Iterator

import pytest

from outboard.ledger import subjects, tokens
from outboard.ledger.schema import devices
from outboard.ledger.transaction import Transaction
from tests.integration.harness import Native, eventually
from tests.unit.controller.site import Site, new_site

MIB = 1 << 20


@pytest.fixture
def site(native: Native) -> Iterator[Site]:
    with new_site(native.root) as made:
        agent = made.add_agent("gpu1")
        agent.end(signal.SIGTERM)
        agent.start(SOFTGPU_NVML_FAULTS=str(made.folder / "faults"))
        yield made


def say(site: Site, *lines: str) -> None:
    """What NVML is to say of the device from now on."""
    new = site.folder / "faults.new"
    new.write_text("".join(f"0 {line}\n" for line in lines))
    new.rename(site.folder / "faults")


def trouble(site: Site) -> str:
    """Why nothing is placed on the device."""
    row = site.parts.database.read(lambda tx: tx.connection.execute(devices.select()).one())
    return "" if row.healthy else str(row.health_reason)


def exposition(site: Site) -> str:
    mark = site.installation.authority.mark

    def token(tx: Transaction) -> str:
        subjects.ensure_user(tx, "eve")
        return tokens.create_token(tx, ("user", "eve"), ("read",), ca_hash=mark)

    trusted = ssl.create_default_context(
        cadata=site.installation.authority.credential.certificate_pem.decode()
    )
    head = {"Authorization": f"Bearer {site.parts.database.write(token)}"}
    asked = urllib.request.Request(f"{site.url}/metrics", headers=head)
    with urllib.request.urlopen(asked, context=trusted) as answer:
        return str(answer.read().decode())


def test_a_broken_gpu_takes_nothing_until_it_is_well_again(site: Site) -> None:
    for lines, reason in (
        (["ecc 2"], "2 uncorrectable memory errors since its driver started"),
        (["lost 1"], "it has fallen off the bus: NVML cannot reach it any more"),
    ):
        say(site, *lines)

        def broken(expected: str = reason) -> bool:
            return trouble(site) == expected

        eventually("it is known to be broken", broken)
        with pytest.raises(AssertionError, match="takes nothing new"):
            site.grant([("gpu1", 0, 300 * MIB)])
        say(site)
        eventually("it is well again", lambda: not trouble(site))
        assert site.grant([("gpu1", 0, 300 * MIB)])


def test_a_gpu_that_failed_takes_nothing_until_its_agent_is_started_anew(site: Site) -> None:
    say(site, "xid 31")  # a program's fault
    say(site, "xid 95")
    reason = "XID 95: an uncontained memory error; reset it and restart its agent"
    eventually("it is known to have failed", lambda: trouble(site) == reason)
    say(site)
    with pytest.raises(AssertionError, match="takes nothing new"):
        site.grant([("gpu1", 0, 300 * MIB)])
    agent = site.agents["gpu1"]
    agent.end(signal.SIGTERM)
    agent.start(SOFTGPU_NVML_FAULTS=str(site.folder / "faults"))
    eventually("it is well again", lambda: not trouble(site))


def test_its_figures_are_there_as_dashboards_know_them(site: Site) -> None:
    say(site, "temperature 41", "power 250500", "utilization 37")
    eventually(
        "the figures are known", lambda: "temperature_c" in site.parts.fleet.figures("gpu1", 0)
    )
    known = {
        line.split("{")[0]: float(line.rpartition(" ")[2])
        for line in exposition(site).splitlines()
        if line.startswith("DCGM_FI_DEV_")
    }
    assert known["DCGM_FI_DEV_GPU_TEMP"] == 41
    assert known["DCGM_FI_DEV_POWER_USAGE"] == 250.5
    assert known["DCGM_FI_DEV_GPU_UTIL"] == 37
    assert known["DCGM_FI_DEV_FB_USED"] == 0
    assert known["DCGM_FI_DEV_FB_FREE"] > 0
    assert "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL" not in known, "what is not known is not told"
