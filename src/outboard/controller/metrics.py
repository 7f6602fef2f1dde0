"""Prometheus metrics: what the pool has, what is granted, who waits, how the API does.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from outboard.controller.figures import DEVICE_FIGURES, FiguresOf
from outboard.controller.service import Service

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One controller's registry."""

    def __init__(self, service: Service, figures: FiguresOf) -> None:
        """`figures` are what a device's agent said of it last."""
        self._service = service
        self.figures = figures
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "outboard_api_calls",
            "API calls answered",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "outboard_api_seconds",
            "How long an API call took",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        device = ["node", "device", "UUID", "modelName"]
        self._capacity = self._gauge("outboard_device_capacity_bytes", "Can be granted", device)
        self._granted = self._gauge("outboard_device_granted_bytes", "Is granted", device)
        self._open = self._gauge("outboard_device_open", "1 if it takes new grants", device)
        self._told = {
            name: (self._gauge(metric, what, device), scale)
            for name, (metric, what, scale) in DEVICE_FIGURES.items()
        }
        self._waiting = self._gauge("outboard_requests_waiting", "Requests in the queue", [])
        self._running = self._gauge("outboard_allocations", "Allocations that have not ended", [])
        self._usable = self._gauge("outboard_ledger_up", "1 if the ledger answers", [])

    def text(self) -> bytes:
        """The exposition, from the image: it costs the ledger nothing."""
        image = self._service.image
        told = [gauge for gauge, _ in self._told.values()]
        for gauge in (self._capacity, self._granted, self._open, *told):
            gauge.clear()
        for device in image.states():
            labels = (device.node, str(device.index), device.facts["device.id"], device.name)
            self._capacity.labels(*labels).set(device.capacity_bytes)
            self._granted.labels(*labels).set(device.granted_bytes)
            self._open.labels(*labels).set(0 if device.closed else 1)
            for name, value in self.figures(device.node, device.index).items():
                gauge, scale = self._told[name]
                gauge.labels(*labels).set(value * scale)
        self._waiting.set(len(image.waiting))
        self._running.set(len(image.running))
        self._usable.set(0 if self._service.trouble else 1)
        return generate_latest(self.registry)

    def _gauge(self, name: str, what: str, labels: list[str]) -> Gauge:
        return Gauge(name, what, labels, registry=self.registry)
