"""The agent's process: puts its parts together, and leaves the programs alone when it ends.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from outboard import __version__
from outboard.agent.admission import Admission
from outboard.agent.agent import Agent
from outboard.agent.calls import WorkerCalls
from outboard.agent.driver import candidate_drivers, release_of
from outboard.agent.epochs import Epochs
from outboard.agent.gate import Gate
from outboard.agent.health import DeviceHealth, Reader, nvml_of
from outboard.agent.inventory import Inventory, find_devices
from outboard.agent.isolation import raise_soft_limits, worker_environment
from outboard.agent.link import ControllerLink
from outboard.agent.records import Records
from outboard.agent.reporter import Reporter
from outboard.agent.sandbox import Sandbox, prepare
from outboard.agent.view import keep_mounts
from outboard.agent.workers import Workers
from outboard.errors import ConfigurationError
from outboard.model.identity import Identity, read_identity, write_identity
from outboard.native import find_native_files
from outboard.notify import Notifier
from outboard.pki.signing import KnownKeys

log = logging.getLogger("outboard.agent.service")

_EVERY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent is run. `listen` and `address` are HOST:PORT; clients connect to `address`."""

    state: str
    runtime: str
    listen: str
    address: str
    driver: str
    warm_workers: int
    isolation: str
    worker_users: str
    plaintext: bool


def run_agent(options: AgentOptions) -> int:
    """Serve until SIGTERM. Raises `ConfigurationError` or `InventoryFailed` if it cannot start."""
    os.umask(0o077)
    raise_soft_limits()
    for folder in (options.state, options.runtime, os.path.join(options.runtime, "calls")):
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {folder} cannot be made: {error.strerror}",
                "run the agent as root, or name folders of your own: --state, --runtime",
            ) from error
    host, port = split_address(options.listen)
    identity = read_identity(options.state)
    native = find_native_files()
    native.require_worker()
    environment = worker_environment(None)
    drivers = candidate_drivers(options.driver, native)
    inventory, passed_over = find_devices(native.worker, drivers, environment, options.warm_workers)
    for why in passed_over:
        log.info("driver passed over: %s", why)
    calls = os.path.join(options.runtime, "calls")
    keep_mounts()
    sandbox = prepare(
        options.isolation,
        options.worker_users,
        native.worker,
        inventory.driver.path,
        os.path.join(options.runtime, "view"),
        [calls],
    )
    environment = sandbox.environment(os.path.join(options.state, "cache"))
    if sandbox.users is not None:
        os.chown(calls, -1, sandbox.users.group)
        os.chmod(calls, 0o710)
        os.chmod(options.runtime, 0o711)  # workers pass through, and list nothing
    service = _Service(options, identity, inventory, sandbox)
    asyncio.run(service.run(native.worker, environment, host, port))
    return 0


class _Service:
    """The parts of one agent, while it runs."""

    def __init__(
        self, options: AgentOptions, identity: Identity, inventory: Inventory, sandbox: Sandbox
    ) -> None:
        self._sandbox = sandbox
        self._options = options
        self._identity = identity
        self._inventory = inventory
        self._keys = KnownKeys(bytes.fromhex(key) for key in identity.keys)
        self._link: ControllerLink
        self._workers: Workers
        self._devices: DeviceHealth

    async def run(self, worker: str, environment: dict[str, str], host: str, port: int) -> None:
        """Serve until a signal asks for the end."""
        options, identity = self._options, self._identity
        notifier = Notifier()
        epochs = Epochs(os.path.join(options.state, "epochs"), time.time())
        node_key = bytes.fromhex(identity.node_key)
        agent = Agent(
            Admission(identity.name, node_key, self._keys, epochs),
            self._inventory.devices,
            Records(os.path.join(options.runtime, "sessions")),
            protect=not options.plaintext,
        )
        calls_path = os.path.join(options.runtime, "calls/agent.sock")
        self._workers = agent.workers = Workers(
            worker,
            self._inventory.driver.path,
            self._inventory.warm_devices,
            environment,
            options.warm_workers,
            agent.worker_exited,
            agent.introduce,
            self._sandbox,
            calls_path,
        )
        agent.adopt()
        users = self._sandbox.users
        calls = WorkerCalls(calls_path, agent.worker_called, users.group if users else None)
        gate = Gate(host, agent.admit, port)
        agent.memory_socket = gate.memory_socket
        link = self._link = ControllerLink(
            identity.controllers, identity.authority_pem, identity.token
        )
        reporter = Reporter(
            identity.name, agent, link, self._describe(gate.address), self._health, self._learn
        )
        agent.on_programs = reporter.changed
        self._devices = DeviceHealth(self._inventory.devices, reporter.changed)
        nvml = nvml_of(self._inventory.driver)
        reader = nvml and Reader(nvml, self._inventory.devices, self._devices)
        if reader:
            reader.start()
        self._workers.fill()
        log.info(
            "release %s, node %s, data plane on %s, driver %s, %d devices, controllers %s",
            __version__,
            identity.name,
            gate.address,
            self._inventory.driver.path,
            len(self._inventory.devices),
            ", ".join(identity.controllers),
        )
        log.info("isolation that workers lack: %s", "; ".join(self._sandbox.missing))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        tasks = [
            asyncio.create_task(work)
            for work in (gate.serve(), calls.serve(), reporter.run(), stop.wait())
        ]
        tasks.append(asyncio.create_task(notifier.watch()))
        notifier.tell("READY=1")
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        notifier.tell("STOPPING=1")
        for task in tasks:
            task.cancel()
        if reader:
            reader.close()
        gate.close()
        calls.close()
        await link.close()
        await self._workers.close(abandon_claimed=True)
        for task in done:
            task.result()  # what ended by itself ended by a fault of ours: it is not hidden

    def _describe(self, address: str) -> dict[str, object]:
        """The inventory as controllers are told."""
        inventory = self._inventory
        return {
            "address": self._options.address or self._reached(address),
            "hostname": socket.gethostname(),
            "tls": "none" if self._options.plaintext else "psk",
            "driver": inventory.driver.path,
            "driver_version": inventory.driver_version,
            "driver_release": release_of(inventory.driver.path),
            "protocol": inventory.protocol,
            "software": inventory.software,
            "devices": [
                {**device.to_json(), "minimum_share_bytes": device.minimum_share_bytes}
                for device in inventory.devices
            ],
        }

    def _reached(self, address: str) -> str:
        """Where clients reach the data plane: of all addresses, the one that faces the pool."""
        host, port = split_address(address)
        if host not in _EVERY_ADDRESS:
            return address
        controller = urlsplit(self._identity.controllers[0])
        try:
            place = (controller.hostname or "", controller.port or 443)
            found = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
            with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
                probe.connect(found[4])  # sends nothing: it asks for the route
                host = probe.getsockname()[0]
        except OSError as error:
            host = socket.getfqdn()
            log.warning("no route to %s (%s): clients are told %s", place[0], error, host)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _health(self) -> dict[str, object]:
        """A node whose workers do not start takes no sessions; devices are judged by the driver."""
        failing = self._options.warm_workers > 0 and self._workers.failing
        reason = f"workers do not start: {self._workers.last_failure}" if failing else ""
        return {
            "healthy": not failing,
            "reason": reason,
            "warm_workers": self._workers.warm_count,
            "devices": self._devices.report(),
        }

    def _learn(self, keys: tuple[str, ...], controllers: tuple[str, ...]) -> None:
        """Controllers came or went. Kept on disk: grants are verified while none answers, and who
        starts anew has to find one."""
        known = self._identity
        keys, controllers = keys or known.keys, controllers or known.controllers
        if (set(keys), set(controllers)) == (set(known.keys), set(known.controllers)):
            return
        self._keys.replace(bytes.fromhex(key) for key in keys)
        self._link.know(controllers)
        self._identity = replace(known, keys=keys, controllers=controllers)
        write_identity(self._options.state, self._identity)
        log.info("the pool's controllers are %s", ", ".join(controllers))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[V6]:PORT`; raises `ConfigurationError`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(
            f"{address!r} is not HOST:PORT", "for example 10.0.0.5:7861, or [::]:7861"
        )
    return host.strip("[]"), int(port)
