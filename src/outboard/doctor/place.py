"""The machine that is examined: what it is to a pool, and its way to that pool, opened once.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from outboard.client import remote
from outboard.client.pool import Pool, open_pool
from outboard.doctor.contact import Reach
from outboard.errors import ConfigurationError
from outboard.model.identity import FILE as IDENTITY_FILE
from outboard.model.identity import Identity, read_identity
from outboard.settings import Settings


class Place:
    """One machine. Properties that reach out raise what is in the way, each time again."""

    def __init__(
        self, settings: Settings, controller_state: str, agent_state: str, *, quick: bool = False
    ) -> None:
        """The state folders are looked at where they hold a controller or an agent."""
        self.settings = settings
        self.controller_state = controller_state
        self.agent_state = agent_state
        self.quick = quick
        self.environment = dict(os.environ)
        self.configured = settings.find("pool")
        self.roles = {"client"}
        if os.path.exists(os.path.join(controller_state, "controller.json")):
            self.roles.add("controller")
        if os.path.exists(os.path.join(agent_state, IDENTITY_FILE)):
            self.roles.add("agent")

    @property
    def remote(self) -> bool:
        """Whether the pool is one that is reached over the network."""
        return self.configured is not None and not self.configured[0].startswith("unix:")

    @cached_property
    def authority_pem(self) -> str:
        """The certificate that this account trusts."""
        found = self.settings.find("authority")
        if found is None:
            raise ConfigurationError(
                "a pool is configured and no authority for it", f"outboard login {self.url}"
            )
        return remote.read_authority(*found)

    @property
    def url(self) -> str:
        return self.configured[0] if self.configured else ""

    @cached_property
    def reach(self) -> Reach:
        """The configured controllers; none where no pool of the network is configured."""
        places = remote.parse_urls(*self.configured) if self.configured and self.remote else []
        return Reach(places, self.authority_pem if places else "")

    @cached_property
    def pool(self) -> Pool:
        """The configured pool, or this machine's own if it runs."""
        return open_pool(self.settings, start=False)

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        """The pool's servers."""
        found = self.pool.get("/v1/nodes")["nodes"]
        assert isinstance(found, list)
        return found

    @cached_property
    def identity(self) -> Identity:
        """Who this GPU server is."""
        return read_identity(self.agent_state)

    def close(self) -> None:
        """Close what was opened."""
        for name in ("reach", "pool"):
            opened = self.__dict__.get(name)
            if opened is not None:
                opened.close()
