"""Reads the predecessor's unit and capture script, and says what of ours does the same.

SPDX-License-Identifier: Apache-2.0

What people wrote (`bitfusion-client.service`) ran a shell under `bitfusion run`, dumped variables
into a profile script and slept. Of all that only the request and the user matter here.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from outboard.errors import UsageError

_TARGET = re.compile(r"^\s*(?:export\s+)?BITFUSIONTARGFILE=[\"']?([^\"'\n]+)", re.MULTILINE)
_ROOT_USERS = ("", "root")


@dataclass(slots=True)
class Imported:
    """The words for `outboard service install`, and what was changed on the way."""

    words: list[str]
    changes: list[str] = field(default_factory=list)
    script: str = ""  # the capture script's path, for whoever reads it next


def import_unit(text: str) -> Imported:
    """The request in a unit; raises `UsageError` if it runs no `bitfusion run`."""
    settings = _settings(text)
    words, command = _run_words(settings.get("ExecStart", ""))
    made = Imported([])
    _request(words, made)
    user = settings.get("User", "")
    if user in _ROOT_USERS:
        made.changes.append("ran as root for all users: the machine's service, for all users")
    else:
        made.words += ["--for-user", user]
        made.changes.append(f"User={user}: the machine's service for {user} alone (--for-user)")
        if settings.get("Group"):
            made.changes.append(
                f"Group={settings['Group']}: not needed, the daemon has an account of its own"
            )
    made.script = next((word for word in command[1:] if word.startswith("/")), "")
    if command:
        made.changes.append(
            f"{shlex.join(command)}: not run any more, the hooks of `service install` do its work"
        )
    if settings.get("ExecStopPost"):
        made.changes.append(
            f"ExecStopPost={settings['ExecStopPost']}: not needed, what varies lies in /run"
        )
    return made


def note_script(text: str, made: Imported) -> None:
    """Add what the capture script tells: the file that it wrote is to go."""
    found = _TARGET.search(text)
    if found:
        target = found[1].strip()
        made.changes.append(f"{target}: remove it, and the lines of ~/.profile that source it")


def _settings(text: str) -> dict[str, str]:
    """The last value of each key; commented lines and sections are passed over."""
    found: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith(("#", ";")):
            found[name.strip()] = value.strip()
    return found


def _run_words(exec_start: str) -> tuple[list[str], list[str]]:
    """(options, command) of `bitfusion run OPTIONS -- COMMAND`."""
    try:
        words = shlex.split(exec_start.lstrip("@-:+!"))
    except ValueError:
        words = []
    if len(words) < 2 or not words[0].endswith("bitfusion") or words[1] != "run":
        raise UsageError(
            "this unit does not run `bitfusion run`",
            "name the predecessor's unit: outboard service import bitfusion-client.service",
        )
    options = words[2:]
    if "--" in options:
        at = options.index("--")
        return options[:at], options[at + 1 :]
    at = 0
    while at < len(options) and options[at].startswith("-"):
        at += 1 if "=" in options[at] else 2
    return options[:at], options[at:]


def _request(words: list[str], made: Imported) -> None:
    names = {"-n": "-n", "--num_gpus": "-n", "-p": "-p", "--partial": "-p", "-m": "-m"}
    at = 0
    while at < len(words):
        name, separator, value = words[at].partition("=")
        if not separator:
            value = words[at + 1] if at + 1 < len(words) else ""
            at += 1
        at += 1
        if name in names and value:
            made.words += [names[name], value]
        else:
            made.changes.append(f"{name} {value}: left out, the pool decides by itself")
    if "-n" not in made.words:
        made.words = ["-n", "1", *made.words]
