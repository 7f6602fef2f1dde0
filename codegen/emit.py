"""Renders the templates into the build tree, touching only the files whose content changed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mako.lookup import TemplateLookup  # type: ignore[import-untyped]

from codegen.commands import Command, check_unique, load_commands, protocol_hash

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: object) -> str:
    """The text of one template; an undefined name in it is an error, not an empty string."""
    lookup = TemplateLookup(directories=[str(TEMPLATES)], strict_undefined=True)
    text: str = lookup.get_template(template).render(**values)
    return text


def outputs(root: Path) -> Mapping[str, str]:
    """Every generated file, by its name below the output folder."""
    commands: tuple[Command, ...] = load_commands(root / "api" / "cuda" / "commands.toml")
    check_unique(commands)
    return {
        "commands.hpp": render("commands.hpp.mako", commands=commands),
        "protocol.hpp": render(
            "protocol.hpp.mako", commands=commands, digest=protocol_hash(commands)
        ),
    }


def write(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Writes the files whose content differs from what lies there; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    changed: list[str] = []
    for name, text in files.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.write_text(text, encoding="utf-8")
        changed.append(name)
    return changed
