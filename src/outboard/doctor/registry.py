"""Checks and what they find: pass, warn, fail, each with the fix to type.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from outboard.doctor.contact import Contact, Reach
from outboard.doctor.place import Place
from outboard.errors import OutboardError

CLIENT, CONTROLLER, AGENT = "client", "controller", "agent"
EVERYWHERE = (CLIENT, CONTROLLER, AGENT)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `state` is pass, warn, fail or skip; `fix` is what to type."""

    state: str
    text: str
    fix: str = ""


Look = Callable[[Place], Finding | list[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at, on machines of these roles, unless what it `needs` has failed. Where
    there are several of it, each has a finding."""

    name: str
    roles: tuple[str, ...]
    look: Look
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A check and its finding."""

    check: Check
    finding: Finding


Found = TypeVar("Found", bound=Look)

CHECKS: list[Check] = []


def check(name: str, *roles: str, needs: str = "") -> Callable[[Found], Found]:
    """Register a function as a check; `needs` names a check that comes before it."""

    def register(look: Found) -> Found:
        CHECKS.append(Check(name, roles or EVERYWHERE, look, needs))
        return look

    return register


def good(text: str) -> Finding:
    return Finding("pass", text)


def warning(text: str, fix: str) -> Finding:
    return Finding("warn", text, fix)


def failure(text: str, fix: str) -> Finding:
    return Finding("fail", text, fix)


def skipped(text: str) -> Finding:
    return Finding("skip", text)


def examine(place: Place, checks: Iterable[Check]) -> Iterator[Result]:
    """Run the checks that concern this place, in order, each result as soon as it is there."""
    failed: set[str] = set()
    for one in checks:
        if not place.roles.intersection(one.roles):
            continue
        for finding in _run(one, place, failed):
            if finding.state == "fail" or (finding.state == "skip" and one.needs in failed):
                failed.add(one.name)
            yield Result(one, finding)


def _run(one: Check, place: Place, failed: set[str]) -> list[Finding]:
    if one.needs in failed:
        return [skipped(f"not looked at, since {one.needs} failed")]
    try:
        found = one.look(place)
    except OutboardError as error:
        return [failure(error.message, error.hint)]
    except OSError as error:
        return [failure(f"{error.filename or one.name}: {error.strerror or error}", "")]
    return found if isinstance(found, list) else [found]


def of_each(reach: Reach, look: Callable[[Contact], Finding]) -> list[Finding]:
    """What is found of each controller that answers."""

    def told(contact: Contact) -> Finding:
        try:
            return look(contact)
        except OutboardError as error:
            return failure(error.message, error.hint)

    return list(map(told, reach.contacts))


def unanswered(reach: Reach) -> list[Finding]:
    """What keeps from the other controllers: bad where there is no other way to the pool."""
    told = warning if reach.contacts else failure
    return [told(error.message, error.hint) for error in reach.silent]
