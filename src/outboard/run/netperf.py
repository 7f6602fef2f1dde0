"""Measures the connection to a GPU server as programs have it: in a session, with its protection.

SPDX-License-Identifier: Apache-2.0

The session is of the smallest share that a program can have, and ends with the measurement.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from outboard.client.pool import open_pool
from outboard.errors import NotFound, PoolError
from outboard.native import find_native_files
from outboard.run.environment import drop_machine_choices, session_environment
from outboard.run.lease import HeldSession, Wish, obtain
from outboard.settings import load_settings
from outboard.units import GIB, MIB

_REAL_SHARE_BYTES = GIB  # below it a real GPU's context leaves nothing to copy to
_SPARE_BYTES = 8 * MIB
_HANG_S = 300.0


class Amount:
    """How much to measure: bytes of a large copy, round trips, seconds for each direction."""

    def __init__(self, size_bytes: int, trips: int, seconds: float) -> None:
        self.size_bytes = size_bytes
        self.trips = trips
        self.seconds = seconds


WHOLE = Amount(32 * MIB, 2000, 2.0)
SHORT = Amount(4 * MIB, 200, 0.2)


def netperf(node: str | None, amount: Amount, wait_s: float | None) -> dict[str, Any]:
    """What was measured of a node (None: of any), as JSON shows it.

    Raises what asking the pool raises, `NotFound` for a node that the pool does not have, and
    `PoolError` if the program that measures fails.
    """
    native = find_native_files()
    native.require_shim()
    share_bytes, further = _wish(node, amount.size_bytes)
    wish = Wish(1, {"bytes": share_bytes}, wait_s, further, "outboard netperf")
    pool, granted = obtain(wish, lambda _line: None, lambda _standing: None)
    held = HeldSession(pool, granted, lambda _line: None)
    try:
        held.write(granted)
        environment = session_environment(
            os.environ, held.path, native.shim_folder, software=granted.software
        )
        drop_machine_choices(environment)
        measured = _run(environment, amount)
    finally:
        held.release()
    server = granted.session.nodes[0]
    return {
        "node": server.name,
        "address": server.address,
        "protection": {"psk": "TLS 1.3"}.get(server.tls, "none"),
        "copy_bytes": amount.size_bytes,
        **measured,
    }


def _wish(node: str | None, size_bytes: int) -> tuple[int, dict[str, object]]:
    """The smallest share that holds one large copy, and where it is to be."""
    pool = open_pool(load_settings())
    try:
        found = pool.get("/v1/devices")["devices"]
    finally:
        pool.close()
    assert isinstance(found, list)
    devices = [device for device in found if node is None or device["node"] == node]
    if not devices:
        names = ", ".join(sorted({str(device["node"]) for device in found})) or "none"
        what = f"GPU server {node}" if node else "GPU"
        raise NotFound(f"the pool has no {what}; its servers are: {names}", "see: outboard nodes")
    first = max(devices, key=lambda device: int(device["free_bytes"]))
    share_bytes = _REAL_SHARE_BYTES
    if first["software"]:
        # A context, its granule, and what is copied; whole MiB, as shares are shown.
        share_bytes = int(first.get("context_bytes") or 0) + size_bytes + _SPARE_BYTES
        share_bytes = -(-share_bytes // MIB) * MIB
    share_bytes = min(share_bytes, int(first["capacity_bytes"]))
    return share_bytes, {} if node is None or pool.embedded else {"server": node}


def _run(environment: dict[str, str], amount: Amount) -> dict[str, Any]:
    words = [sys.executable, "-P", "-s", "-m", "outboard.run.netperf_program"]
    words += ["--size", str(amount.size_bytes), "--trips", str(amount.trips)]
    words += ["--seconds", str(amount.seconds)]
    sources = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment["PYTHONPATH"] = sources
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_HANG_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PoolError(
            f"the measurement did not end within {_HANG_S:.0f} s",
            "look at the way to the server: outboard doctor",
        ) from error
    lines = done.stdout.strip().splitlines()
    measured = json.loads(lines[-1]) if lines else {"error": done.stderr.strip()[-400:]}
    if "error" in measured or done.returncode != 0:
        said = done.stderr.strip().splitlines()
        why = f"{measured.get('error')}; {said[-1]}" if said else str(measured.get("error"))
        raise PoolError(f"the program that measures failed: {why}", "see: outboard doctor")
    assert isinstance(measured, dict)
    return measured
