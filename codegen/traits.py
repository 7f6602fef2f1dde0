"""Traits: what the worker has to know of a command beside its bytes.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Mapping

from codegen.errors import SpecError

# Each with whether it is for commands that are ordered on a stream, else for those issued at once:
# the worker asks for it on that way alone. api/cuda/commands.toml says what they mean.
TRAITS: Mapping[str, bool] = {
    "works_in_dead_context": False,
    "changes_launches": False,
    "monitoring": False,
    "staged": True,
    "uncounted": True,
}


def read_traits(where: str, entry: object, *, ordered: bool) -> tuple[str, ...]:
    """The value of a key `traits`; refuses what the worker would never ask of such a command."""
    if not isinstance(entry, list):
        raise SpecError(f'{where}: write traits = ["NAME", ...]; known: {", ".join(TRAITS)}')
    for name in entry:
        if name not in TRAITS:
            raise SpecError(f"{where}: unknown trait {name!r}; known: {', '.join(TRAITS)}")
        if TRAITS[name] != ordered:
            what = "ordered on a stream" if TRAITS[name] else "issued at once"
            raise SpecError(f"{where}: the trait {name} is for commands that are {what}")
    return tuple(name for name in TRAITS if name in entry)
