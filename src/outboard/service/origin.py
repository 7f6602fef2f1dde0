"""Where each variable of a service comes from: which installed file sets it, what this shell has.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outboard.service.environment import SESSION, Gain


@dataclass(frozen=True, slots=True)
class Origin:
    """One variable. `now` is what the environment has, None where it has none; `files` are those
    that set it, each with who reads it."""

    name: str
    value: str
    prepends: bool
    now: str | None
    files: dict[str, str]

    @property
    def here(self) -> bool:
        """Whether the environment has what the service means."""
        if self.prepends:
            return self.now is not None and self.value in self.now.split(":")
        return self.now == (self.value or None)

    def record(self) -> dict[str, object]:
        """For programs to read."""
        return {
            "value": self.value,
            "prepends": self.prepends,
            "now": self.now,
            "here": self.here,
            "files": self.files,
        }


def origins(
    found: list[Gain], environment: Mapping[str, str], hooks: Mapping[str, str]
) -> list[Origin]:
    """The origin of each variable; `hooks` are the files that may set them and who reads each.

    A session that the environment names and the service does not is among them: programs use it
    in the service's place.
    """
    texts = {path: _read(path) for path in hooks}
    made = [
        Origin(
            gain.name,
            gain.value,
            gain.prepends,
            environment.get(gain.name),
            {path: hooks[path] for path, text in texts.items() if gain.name in text},
        )
        for gain in found
    ]
    if SESSION in environment and SESSION not in {gain.name for gain in found}:
        who = {"outboard run, outboard shell": "this shell"}
        made.append(Origin(SESSION, "", False, environment[SESSION], who))
    return made


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
