"""A GPU server and its devices, as its agent reports them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_DEVICES_OF_A_SESSION = 16  # columns of the share page


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU of a node.

    `total_bytes` is what the driver says; `capacity_bytes` is what can be granted: the total less
    what the node's own warm workers hold. Less than `minimum_share_bytes` cannot hold a context.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    capacity_bytes: int
    context_bytes: int
    minimum_share_bytes: int
    compute_capability: str
    pci: str
    multiprocessors: int

    def to_json(self) -> dict[str, object]:
        return {
            "index": self.index,
            "uuid": self.uuid,
            "name": self.name,
            "total_bytes": self.total_bytes,
            "capacity_bytes": self.capacity_bytes,
            "context_bytes": self.context_bytes,
            "compute_capability": self.compute_capability,
            "pci": self.pci,
            "multiprocessors": self.multiprocessors,
        }


@dataclass(frozen=True, slots=True)
class Node:
    """One GPU server: where its data plane listens and what it has."""

    name: str
    address: str
    tls: str
    driver: str
    driver_version: int
    protocol: str
    software: bool
    devices: tuple[Device, ...]

    def to_json(self) -> dict[str, object]:
        """Without the devices: the API lists those with what is granted of them."""
        return {
            "name": self.name,
            "address": self.address,
            "tls": self.tls,
            "driver": self.driver,
            "driver_version": self.driver_version,
            "protocol": self.protocol,
            "software": self.software,
        }
