"""Writes settings into a configuration file and leaves what else is there alone.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import re
import tomllib

from outboard.errors import ConfigurationError


def write_settings(path: str, values: dict[str, str]) -> None:
    """Set top-level keys; the file is its owner's alone afterwards, and put in place in one step.

    Raises `ConfigurationError` if the file that is there cannot be read or kept.
    """
    try:
        with open(path, encoding="utf-8") as file:
            before = file.read()
        tomllib.loads(before)
    except FileNotFoundError:
        before = ""
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be used: {error}", f"correct it, or move it away: mv {path} {path}.old"
        ) from error
    text = _with(before, values)
    tomllib.loads(text)
    temporary = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}", "name another place in XDG_CONFIG_HOME"
        ) from error


def _with(before: str, values: dict[str, str]) -> str:
    """The text with these keys set above its first table."""
    lines = before.splitlines()
    first_table = next((at for at, line in enumerate(lines) if line.lstrip()[:1] == "["), None)
    top, tables = lines[:first_table], [] if first_table is None else lines[first_table:]
    kept = [line for line in top if _key(line) not in values]
    added = [f"{name} = {_quoted(value)}" for name, value in values.items()]
    return "\n".join([*added, *kept, *tables]) + "\n"


def _key(line: str) -> str:
    match = re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line)
    return match[1] if match else ""


def _quoted(value: str) -> str:
    """A basic string of TOML."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise ConfigurationError("a setting holds a character that cannot be shown")
    return f'"{escaped}"'
