"""What a shell of the service's users gains: computed from what `outboard run` sets, never a list.

SPDX-License-Identifier: Apache-2.0

Only names of files that stay while the service is installed are in it, so it never becomes invalid.
"""

from __future__ import annotations

from dataclasses import dataclass

from outboard.run.environment import session_environment
from outboard.service.folders import DEFAULT_NAME, ServiceFolders

# Stands for whatever a list already holds; it can be no path.
_BEFORE = "\0"
SESSION = "OUTBOARD_SESSION"


@dataclass(frozen=True, slots=True)
class Gain:
    """One variable: set to `value`, or, with `prepends`, put in front of what the list holds."""

    name: str
    value: str
    prepends: bool


def gains(folders: ServiceFolders, shim_folder: str, *, software: bool) -> list[Gain]:
    """The difference between a shell inside `outboard run` and the shell outside of it; `software`
    says whether the pool's GPUs are software, which some libraries have to be told."""
    # Whether a variable is a list shows where something was in it before.
    plain = session_environment({}, folders.session_file, shim_folder, software=software)
    filled = session_environment(
        dict.fromkeys(plain, _BEFORE), folders.session_file, shim_folder, software=software
    )
    found = [
        Gain(name, value, filled[name].endswith(":" + _BEFORE))
        for name, value in sorted(plain.items())
    ]
    # Programs find the default session by themselves. Naming it would hide a user's own from him.
    return [gain for gain in found if gain.name != SESSION or folders.name != DEFAULT_NAME]


def as_shell(found: list[Gain]) -> str:
    """For sh, bash and zsh, to be sourced: prints nothing, fails never, may be sourced twice."""
    lines = []
    for gain in found:
        if not gain.prepends:
            lines.append(f"export {gain.name}={_quoted(gain.value)}")
            continue
        # No colon without something behind it: an empty part would be the current folder.
        lines += [
            f'case ":${{{gain.name}-}}:" in',
            f"  *:{_quoted(gain.value)}:*) ;;",
            f'  *) export {gain.name}={_quoted(gain.value)}"${{{gain.name}:+:${gain.name}}}" ;;',
            "esac",
        ]
    return "\n".join(lines) + "\n"


def as_fish(found: list[Gain]) -> str:
    """For fish, whose path lists are joined by colons when they are exported."""
    lines = []
    for gain in found:
        if not gain.prepends:
            lines.append(f"set -gx {gain.name} {_quoted(gain.value)}")
            continue
        lines += [
            f'if not contains -- {_quoted(gain.value)} (string split ":" -- "${gain.name}")',
            f'    if test -n "${gain.name}"',
            f'        set -gx {gain.name} {_quoted(gain.value)}":${gain.name}"',
            "    else",
            f"        set -gx {gain.name} {_quoted(gain.value)}",
            "    end",
            "end",
        ]
    return "\n".join(lines) + "\n"


def as_environment_d(found: list[Gain]) -> str:
    """For environment.d(5), which user services and graphical logins read."""
    lines = []
    for gain in found:
        rest = f"${{{gain.name}:+:${gain.name}}}" if gain.prepends else ""
        lines.append(f"{gain.name}={gain.value}{rest}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'" if not text.isascii() or _odd(text) else text


def _odd(text: str) -> bool:
    return any(not (letter.isalnum() or letter in "/._-+@=") for letter in text)
