"""Filters on devices: a list of (key, operator, value), no language.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from outboard.errors import MalformedRequest
from outboard.units import parse_memory_bytes

OPERATORS = ("=", "!=", ">=", "<=")
KEYS = (
    "server.addr",
    "server.hostname",
    "server.name",
    "server.cuda-version",
    "server.driver-version",
    "device.id",
    "device.name",
    "device.memory",
)
LABEL_PREFIX = "label."
_FORM = re.compile(r"([A-Za-z0-9_.\-]+?)\s*(!=|>=|<=|=)\s*(.+)")
_ORDERED = frozenset(("server.cuda-version", "server.driver-version", "device.memory"))


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition that each granted device has to meet."""

    key: str
    operator: str
    value: str

    def __post_init__(self) -> None:
        if self.key not in KEYS and not self.key.startswith(LABEL_PREFIX):
            raise MalformedRequest(
                f"there is no filter {self.key}", f"filters are {', '.join(KEYS)} and label.NAME"
            )
        if self.operator not in OPERATORS:
            raise MalformedRequest(
                f"filter {self.key}: no operator {self.operator!r}", "use =, !=, >= or <="
            )
        if self.operator in (">=", "<=") and self.key not in _ORDERED:
            raise MalformedRequest(f"filter {self.key}: only = and != compare text")
        if not 0 < len(self.value) <= 200:
            raise MalformedRequest(f"filter {self.key}: a value has 1 to 200 characters")
        if self.key in _ORDERED:
            _order(self.key, self.value)

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"

    def matches(self, facts: Mapping[str, str]) -> bool:
        """Whether a device with these facts meets the condition; what it lacks meets only `!=`."""
        fact = facts.get(self.key)
        if fact is None:
            return self.operator == "!="
        if self.key not in _ORDERED:
            return (fact == self.value) == (self.operator == "=")
        have, wanted = _order(self.key, fact), _order(self.key, self.value)
        if self.operator == ">=":
            return have >= wanted
        if self.operator == "<=":
            return have <= wanted
        return (have == wanted) == (self.operator == "=")


def parse_filter(text: str) -> Filter:
    """`device.memory>=16G` as a filter."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise MalformedRequest(
            f"{text!r} is not a filter", "write KEY=VALUE, KEY!=VALUE, KEY>=VALUE or KEY<=VALUE"
        )
    return Filter(match[1], match[2], match[3].strip())


def _order(key: str, value: str) -> tuple[int, ...]:
    """Memory as bytes, versions as their numbers; trailing zeros of a version say nothing."""
    if key == "device.memory":
        try:
            return (parse_memory_bytes(value),)
        except Exception as error:
            raise MalformedRequest(f"filter {key}: {value!r} is not an amount of memory") from error
    parts = value.split(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise MalformedRequest(f"filter {key}: {value!r} is not a version")
    numbers = [int(part) for part in parts]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
