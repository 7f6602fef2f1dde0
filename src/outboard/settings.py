"""Settings by layer: flag over environment over user file over system file.

SPDX-License-Identifier: Apache-2.0

    pool = "https://gpus.example.org:7860"   # OUTBOARD_POOL; absent: this machine's own pool; of
                                             # several controllers: "https://a:7860,https://b:7860"
    token = "ob_..."                         # OUTBOARD_TOKEN; the file is then its owner's alone
    authority = "/path/to/authority.pem"     # OUTBOARD_AUTHORITY: whose certificates are trusted

    [embedded]                               # the pool of this machine
    driver = "auto"                          # OUTBOARD_DRIVER: auto, software, or a path
    idle = "10m"                             # OUTBOARD_POOL_IDLE: ends so long after its last use
    warm_workers = 1                         # OUTBOARD_WARM_WORKERS
    grant_lifetime = "10m"                   # OUTBOARD_GRANT_LIFETIME: renewed at half of it
    lease = "3m"                             # OUTBOARD_LEASE: renewed at a sixth of it
    isolation = "auto"                       # OUTBOARD_ISOLATION: of workers; off: nothing of it

    [agent]                                  # a GPU server: OUTBOARD_AGENT_STATE and so on
    state = "/var/lib/outboard/agent"        # its identity and keys
    runtime = "/run/outboard/agent"          # what its workers need to be found again
    listen = "0.0.0.0:7861"                  # the data plane
    address = "gpu1.example.org:7861"        # how clients reach it; absent: name and port
    driver = "auto"
    warm_workers = 1
    isolation = "auto"                       # of workers: as much as can be, or off
    worker_users = "1879048192-1879113727"   # user ids that are nobody's: one for each session

    [controller]
    state = "/var/lib/outboard/controller"   # OUTBOARD_CONTROLLER_STATE
    lease = "3m"                             # OUTBOARD_CONTROLLER_LEASE: renewed at a sixth of it
"""

from __future__ import annotations

import os

from outboard.directories import user_configuration_file
from outboard.errors import ConfigurationError, OutboardError
from outboard.units import parse_duration_s

SYSTEM_CONFIGURATION_FILE = "/etc/outboard/config.toml"

_VARIABLES = {
    "pool": "OUTBOARD_POOL",
    "token": "OUTBOARD_TOKEN",
    "authority": "OUTBOARD_AUTHORITY",
    "embedded.driver": "OUTBOARD_DRIVER",
    "embedded.idle": "OUTBOARD_POOL_IDLE",
    "embedded.warm_workers": "OUTBOARD_WARM_WORKERS",
    "embedded.grant_lifetime": "OUTBOARD_GRANT_LIFETIME",
    "embedded.lease": "OUTBOARD_LEASE",
    "embedded.isolation": "OUTBOARD_ISOLATION",
    "agent.state": "OUTBOARD_AGENT_STATE",
    "agent.runtime": "OUTBOARD_AGENT_RUNTIME",
    "agent.listen": "OUTBOARD_AGENT_LISTEN",
    "agent.address": "OUTBOARD_AGENT_ADDRESS",
    "agent.driver": "OUTBOARD_AGENT_DRIVER",
    "agent.warm_workers": "OUTBOARD_AGENT_WARM_WORKERS",
    "agent.isolation": "OUTBOARD_AGENT_ISOLATION",
    "agent.worker_users": "OUTBOARD_AGENT_WORKER_USERS",
    "controller.state": "OUTBOARD_CONTROLLER_STATE",
    "controller.lease": "OUTBOARD_CONTROLLER_LEASE",
}


class Settings:
    """The values in force, each with where it comes from."""

    def __init__(self, layers: list[tuple[str, dict[str, str]]]) -> None:
        self._layers = layers

    def text(self, name: str, default: str) -> str:
        """The value of a setting, or its default."""
        found = self.find(name)
        return found[0] if found else default

    def find(self, name: str) -> tuple[str, str] | None:
        """(value, source) of a setting, or None where no layer has it."""
        for source, values in self._layers:
            value = values.get(name)
            if value:
                return value, _VARIABLES[name] if source == "environment" else source
        return None

    @property
    def driver(self) -> str:
        """`auto`, `software`, or the absolute path of a driver."""
        found = self.find("embedded.driver")
        value = found[0] if found else "auto"
        if found and value not in ("auto", "software") and not os.path.isabs(value):
            raise ConfigurationError(
                f"{found[1]}: driver is {value!r}",
                "write auto, software, or the absolute path of a libcuda.so.1",
            )
        return value

    @property
    def idle_s(self) -> float:
        """How long the embedded pool outlives its last session."""
        return self._duration_s("embedded.idle", 600.0)

    @property
    def grant_lifetime_s(self) -> float:
        """How long a grant admits new connections after it was issued."""
        return max(1.0, self._duration_s("embedded.grant_lifetime", 600.0))

    @property
    def lease_s(self) -> float:
        """How long a session that its holder renews lives after the last renewal."""
        return max(1.0, self._duration_s("embedded.lease", 180.0))

    @property
    def controller_lease_s(self) -> float:
        """The same in the pool of this machine's controller."""
        return max(1.0, self._duration_s("controller.lease", 180.0))

    @property
    def warm_workers(self) -> int:
        """How many workers wait, initialised, for the next program."""
        found = self.find("embedded.warm_workers")
        if found is None:
            return 1
        if not found[0].isdecimal() or int(found[0]) > 64:
            raise ConfigurationError(
                f"{found[1]}: warm_workers is {found[0]!r}", "write a number from 0 to 64"
            )
        return int(found[0])

    def _duration_s(self, name: str, default_s: float) -> float:
        found = self.find(name)
        if found is None:
            return default_s
        try:
            return parse_duration_s(found[0])
        except OutboardError as error:
            raise ConfigurationError(f"{found[1]}: {error.message}", error.hint) from error


def load_settings(flags: dict[str, str] | None = None, *, machine: bool = False) -> Settings:
    """Read every layer; a file that is there but cannot be used is an error, not a default.

    With `machine` the user's file is passed over: what is asked for is the machine's own.
    """
    environment = {name: os.environ.get(variable, "") for name, variable in _VARIABLES.items()}
    layers = [("command line", flags or {}), ("environment", environment)]
    for path in ("" if machine else user_configuration_file(), SYSTEM_CONFIGURATION_FILE):
        if path and os.path.exists(path):
            layers.append((path, _read(path)))
    return Settings(layers)


def _read(path: str) -> dict[str, str]:
    import tomllib  # only where there is a file: it costs 4 ms of the launcher's 60

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be used: {error}",
            f"correct the file, or move it away: mv {path} {path}.old",
        ) from error
    values = {}
    for key, value in document.items():
        if isinstance(value, dict):
            values.update({f"{key}.{inner}": str(given) for inner, given in value.items()})
        else:
            values[key] = str(value)
    if "token" in values and os.stat(path).st_mode & 0o077:
        raise ConfigurationError(
            f"{path} holds a token and can be read by others", f"chmod 600 {path}"
        )
    unknown = sorted(set(values) - set(_VARIABLES))
    if unknown:
        raise ConfigurationError(
            f"{path}: unknown setting {', '.join(unknown)}",
            f"the settings are {', '.join(sorted(_VARIABLES))}",
        )
    return values
