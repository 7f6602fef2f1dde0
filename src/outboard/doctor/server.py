"""Checks of a GPU server: its place in the pool, its driver, its GPUs' errors, its port.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

from outboard import __version__
from outboard.client import remote
from outboard.doctor.contact import Contact, Reach, authority_expires
from outboard.doctor.gpu_errors import Nvml, gpu_errors
from outboard.doctor.network import apart, certificate
from outboard.doctor.place import Place
from outboard.doctor.registry import (
    AGENT,
    Finding,
    check,
    failure,
    good,
    of_each,
    skipped,
    unanswered,
    warning,
)
from outboard.errors import AgentError

DEFAULT_LISTEN = "0.0.0.0:7861"
_EXAMINE_TIMEOUT_S = 120.0
_START = "systemctl start outboard-agent, or: outboard agent"


@check("identity", AGENT)
def identity(place: Place) -> Finding:
    """What enrolment left here can be read, by its owner alone."""
    found = place.identity
    return good(f"{found.name} of {', '.join(found.controllers)}; release {__version__}")


@check("agent's controller", AGENT, needs="identity")
def agents_controller(place: Place) -> list[Finding]:
    """Controllers answer, know this node, and have its clock."""
    found = place.identity

    def look(contact: Contact) -> Finding:
        finding = apart(contact.ask()[0], f"the clock of {contact.url}")
        _require_known(contact.url, found.authority_pem, found.token, found.name)
        if finding.state != "pass":
            return finding
        return good(f"{contact.url} knows this server; {finding.text}")

    places = [remote.parse_url(url, "identity.json") for url in found.controllers]
    with contextlib.closing(Reach(places, found.authority_pem)) as reach:
        return of_each(reach, look) + unanswered(reach)


def _require_known(url: str, pem: str, token: str, name: str) -> None:
    connection = remote.connect(url, pem, token, "identity.json")
    try:
        connection.call("POST", f"/v1/nodes/{name}/orders", {"known": [], "wait_s": 0})
    finally:
        connection.close()


@check("agent's authority", AGENT, needs="identity")
def agents_authority(place: Place) -> Finding:
    """The certificate by which the controllers are trusted."""
    return certificate("the pool's authority", authority_expires(place.identity.authority_pem), "")


@check("agent's port", AGENT)
def agents_port(place: Place) -> Finding:
    """Something listens where programs connect."""
    listen = place.settings.text("agent.listen", DEFAULT_LISTEN)
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    try:
        socket.create_connection((host, int(port)), 3.0).close()
    except OSError as error:
        return warning(f"nobody listens on {listen}: {error.strerror or error}", _START)
    except ValueError:
        return failure(f"{listen} is not HOST:PORT", "correct agent.listen in the configuration")
    return good(f"{listen} is listened on")


@check("driver", AGENT)
def driver(place: Place) -> Finding:
    """A worker finds GPUs with the driver that the agent would serve."""
    found = examined(place)
    devices = ", ".join(found["devices"])
    text = f"{found['driver']} ({found['driver_version']}): {devices}"
    if found["software"] and place.settings.text("agent.driver", "auto") == "auto":
        passed = "; ".join(found["passed_over"]) or "no NVIDIA driver is installed"
        return warning(
            f"the software GPU alone: {passed}",
            "install NVIDIA's driver, or say that it is meant: driver = software",
        )
    return good(text)


def examined(place: Place) -> dict[str, Any]:
    """What a worker says of the driver; raises `AgentError` with the agent's words."""
    words = [sys.executable, "-P", "-s", "-m", "outboard.agent.examine"]
    words += ["--driver", place.settings.text("agent.driver", "auto")]
    for name in ("isolation", "worker_users"):
        if value := place.settings.text(f"agent.{name}", ""):
            words += [f"--{name.replace('_', '-')}", value]
    sources = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        done = subprocess.run(
            words,
            env={**place.environment, "PYTHONPATH": sources},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_EXAMINE_TIMEOUT_S,
            check=False,
        )
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise AgentError("the driver does not answer", "nvidia-smi; then restart") from error
    except ValueError as error:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise AgentError(f"the driver cannot be examined: {said[-1]}", _START) from error
    if "error" in told:
        raise AgentError(str(told["error"]), str(told["hint"]))
    assert isinstance(told, dict)
    return told


@check("isolation", AGENT, needs="driver")
def isolation(place: Place) -> Finding:
    """Workers, which do what programs make them do, have users and files of their own."""
    lacks = examined(place)["isolation_lacks"]
    if lacks:
        hint = "run the agent as root, where it may mount: its unit, or a privileged container"
        return warning("; ".join(lacks), hint)
    return good("each session has a user of its own here, and its workers see no files of others")


@check("gpu errors", AGENT, needs="driver")
def errors_of_gpus(place: Place) -> Finding:
    """What NVML knows of memory errors, rows to be replaced, and heat."""
    found = examined(place)
    if found["software"]:
        return skipped("a software GPU has none")
    beside = os.path.join(os.path.dirname(found["driver"]), "libnvidia-ml.so.1")
    try:
        nvml = Nvml(beside if os.path.exists(beside) else "libnvidia-ml.so.1")
    except OSError as error:
        return warning(f"NVML cannot be loaded: {error}", "install NVIDIA's NVML beside the driver")
    grave, lesser, count = gpu_errors(nvml)
    if grave:
        return failure(
            "; ".join(grave), "outboard cordon SERVER; nvidia-smi -q -d ECC,ROW_REMAPPER"
        )
    if lesser:
        return warning("; ".join(lesser), "nvidia-smi -q -d ECC,TEMPERATURE,ROW_REMAPPER")
    return good(f"none on {count} GPUs")
