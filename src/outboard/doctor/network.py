"""Checks of a client's way to its pool: reach, certificates, token, clocks, ports, speed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from outboard import __version__
from outboard.client import remote
from outboard.client.http import PoolConnection
from outboard.directories import pool_socket, runtime_directory
from outboard.doctor.contact import Contact, authority_expires
from outboard.doctor.place import Place
from outboard.doctor.registry import (
    CLIENT,
    Finding,
    check,
    failure,
    good,
    of_each,
    skipped,
    unanswered,
    warning,
)
from outboard.errors import OutboardError, PoolUnreachable
from outboard.native import find_native_files
from outboard.run.netperf import SHORT, netperf

CLOCK_WARNS_S, CLOCK_FAILS_S = 30.0, 300.0  # an agent takes no proof that is older
TOKEN_WARNS_S, CERTIFICATE_WARNS_S = 14 * 86400.0, 30 * 86400.0
_ROUND_TRIP_WARNS_S = 0.005
_LEAST_MTU, _LEAST_BYTES_PER_S = 1400, 10 << 20
_TRIPS = 5
_MOST_NODES = 64
_PORT_TIMEOUT_S = 3.0
_OWN = "this machine's own pool is used"


def _of_each(place: Place, look: Callable[[Contact], Finding]) -> list[Finding]:
    """What is found of each controller that answers."""
    return of_each(place.reach, look) if place.remote else [skipped(_OWN)]


@check("pool", CLIENT)
def pool(place: Place) -> Finding | list[Finding]:
    """The pool that is configured answers; without one, this machine's own needs none."""
    if place.remote:
        answering = of_each(place.reach, lambda contact: good(f"{contact.url} answers"))
        return answering + unanswered(place.reach)
    if place.configured is not None:
        place.pool.get("/healthz")
        return good(f"{place.url} answers")
    try:
        PoolConnection.over_unix(pool_socket(runtime_directory())).close()
    except PoolUnreachable:
        return good(f"none is configured: {_OWN}; it starts with the first program")
    return good(f"none is configured: {_OWN}; it runs")


@check("token", CLIENT, needs="pool")
def token(place: Place) -> Finding:
    """Who this account is to the pool, and for how long."""
    if not place.remote:
        return skipped(f"{_OWN}: it needs none")
    answer = place.pool.get("/v1/whoami")
    name, expires = answer.get("name"), answer.get("expires")
    if expires is None:
        return good(f"{name}; it does not expire")
    left_s = dt.datetime.fromisoformat(str(expires)).timestamp() - time.time()
    text = f"{name}; it expires on {str(expires)[:10]}"
    if left_s < TOKEN_WARNS_S:
        fix = f"ask an administrator (outboard tokens create --user {name}); outboard login URL"
        return warning(text, fix)
    return good(text)


@check("authority", CLIENT, needs="pool")
def authority(place: Place) -> Finding:
    """The certificate that everything else is trusted by."""
    if not place.remote:
        return skipped(_OWN)
    return certificate("the pool's authority", authority_expires(place.authority_pem), "")


@check("certificate", CLIENT, needs="pool")
def shown(place: Place) -> list[Finding]:
    """What the controllers show."""

    def look(contact: Contact) -> Finding:
        return certificate(contact.name, contact.expires(), "on the controller, ")

    return _of_each(place, look)


def certificate(whose: str, ends_unix: float, where: str) -> Finding:
    """A certificate's end; a controller makes its own anew when it starts."""
    day = dt.datetime.fromtimestamp(ends_unix, dt.UTC).date().isoformat()
    left_s = ends_unix - time.time()
    fix = f"{where}systemctl restart outboard-controller" if where else "make the pool anew"
    if left_s <= 0:
        return failure(f"{whose}: ended on {day}", fix)
    if left_s < CERTIFICATE_WARNS_S:
        return warning(f"{whose}: ends on {day}", fix)
    return good(f"{whose}: until {day}")


@check("clock", CLIENT, needs="pool")
def clock(place: Place) -> list[Finding]:
    """Client and pool have to agree: grants expire."""
    return _of_each(place, lambda contact: apart(contact.ask()[0], f"{contact.name}'s"))


def apart(difference_s: float, whose: str) -> Finding:
    """How far two clocks are from each other. It is known to about a second."""
    apart_s = abs(difference_s)
    fix = "timedatectl set-ntp true, here and there"
    if apart_s >= CLOCK_FAILS_S:
        return failure(f"{apart_s:.0f} s from {whose}: grants are refused", fix)
    if apart_s >= CLOCK_WARNS_S:
        return warning(f"{apart_s:.0f} s from {whose}", fix)
    return good(f"within {max(1.0, apart_s):.0f} s of {whose}")


@check("releases", CLIENT, needs="token")
def releases(place: Place) -> Finding:
    """Controllers, servers and this machine are of one release."""
    if not place.remote:
        return skipped(_OWN)
    known = {one.name: _release_of(one, place) for one in place.reach.contacts}
    known |= {str(node["name"]): str(node["release"]) for node in place.nodes}
    others = {name: found for name, found in known.items() if found != __version__}
    if not others:
        return good(f"{len(known)} controllers and servers have {__version__}, too")
    listed = ", ".join(f"{name} {found}" for name, found in sorted(others.items())[:5])
    return warning(f"this is {__version__}; others are: {listed}", "install one release everywhere")


def _release_of(contact: Contact, place: Place) -> str:
    token, source = place.settings.find("token") or ("", "")
    with contextlib.closing(
        remote.connect(contact.url, place.authority_pem, token, source)
    ) as connection:
        return str(connection.call("GET", "/v1/status").get("release"))


@check("protocol", CLIENT, needs="token")
def protocol(place: Place) -> Finding:
    """The shim and the servers' workers speak the same wire protocol: its hash is in the shim."""
    if not place.remote:
        return skipped(_OWN)
    shim = os.path.join(find_native_files().shim_folder, "libcuda.so.1")
    with open(shim, "rb") as file:
        content = file.read()
    others = [
        str(node["name"]) for node in place.nodes if str(node["protocol"]).encode() not in content
    ]
    if not others:
        return good(f"{len(place.nodes)} servers speak this machine's")
    return failure(
        f"{', '.join(others[:5])}: the workers there do not understand programs from here",
        "install one release everywhere; after an upgrade: systemctl restart outboard-agent",
    )


@check("round trip", CLIENT, needs="pool")
def round_trip(place: Place) -> list[Finding]:
    """To the controllers. What a program waits for is the way to its server: netperf."""

    def look(contact: Contact) -> Finding:
        taken_s = statistics.median(contact.ask()[1] for _ in range(_TRIPS))
        text = f"{taken_s * 1000:.1f} ms to {contact.name} and back"
        if taken_s > 20 * _ROUND_TRIP_WARNS_S:
            return warning(text, "look at the network, or at the controller's load")
        return good(text)

    return _of_each(place, look)


@check("mtu", CLIENT, needs="pool")
def mtu(place: Place) -> list[Finding]:
    """The packets' size on the way."""

    def look(contact: Contact) -> Finding:
        size = contact.mtu()
        text = f"{size} bytes to {contact.name}"
        if size < _LEAST_MTU:
            return warning(text, "ip link set dev DEVICE mtu 1500; look at tunnels between")
        more = "" if size >= 9000 else "; 9000 cost less, where the network takes them"
        return good(f"{text}{more}")

    return _of_each(place, look)


@check("data ports", CLIENT, needs="token")
def data_ports(place: Place) -> Finding:
    """Programs reach the servers themselves, not through the controller."""
    if not place.remote:
        return skipped(_OWN)
    asked = [node for node in place.nodes if node["healthy"]][:_MOST_NODES]
    if not place.nodes:
        return warning("the pool has no server yet", "outboard tokens create --join node")
    if not asked:
        return failure("none of the pool's servers is well", "outboard nodes")
    with ThreadPoolExecutor(min(16, len(asked))) as threads:
        tried = list(threads.map(lambda node: _try(str(node["address"])), asked))
    closed = [(node, why) for node, (why, _) in zip(asked, tried, strict=True) if why]
    if closed:
        node, why = closed[0]
        made = failure if len(closed) == len(asked) else warning
        fix = f"open the way to {node['address']} (TCP); on {node['name']}: outboard doctor"
        return made(f"{len(closed)} of {len(asked)} are not reached: {node['name']}: {why}", fix)
    slowest_s = max(taken_s for _, taken_s in tried)
    text = f"{len(asked)} servers are reached within {slowest_s * 1000:.1f} ms"
    if slowest_s > _ROUND_TRIP_WARNS_S:
        return warning(text, "programs that wait for every call are slow that far away: netperf")
    return good(text)


def _try(address: str) -> tuple[str, float]:
    """Why a data port is not reached (empty: it is), and how long a connection took."""
    host, _, port = address.rpartition(":")
    try:
        began = time.perf_counter()
        socket.create_connection((host.strip("[]"), int(port)), _PORT_TIMEOUT_S).close()
        taken_s = time.perf_counter() - began
    except (OSError, ValueError) as error:
        return f"{address}: {getattr(error, 'strerror', None) or error}", 0.0
    return "", taken_s


@check("bandwidth", CLIENT, needs="data ports")
def bandwidth(place: Place) -> Finding:
    """What a program gets, measured by one: `outboard netperf` says more."""
    if place.quick:
        return skipped("--quick")
    if not place.remote:
        return skipped(_OWN)
    try:
        found = netperf(None, SHORT, 0.0)
    except OutboardError as error:
        if error.code in ("busy", "limit_reached", "waited_too_long"):
            return skipped(f"no GPU is free to measure with: {error.message}")
        raise
    to_it, from_it = found["to_node_bytes_per_s"], found["from_node_bytes_per_s"]
    text = (
        f"{to_it >> 20} MiB/s to {found['node']}, {from_it >> 20} MiB/s from it,"
        f" round trip {found['round_trip_p50_us']:.0f} µs"
    )
    if min(to_it, from_it) < _LEAST_BYTES_PER_S:
        return warning(text, f"outboard netperf {found['node']}; look at the network between")
    return good(text)
