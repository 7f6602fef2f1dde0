"""Commands: their layout, their numbers, and the hash that both ends compare.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.commands import FIELD_TYPES, Field, Message, load_commands, protocol_hash
from codegen.errors import SpecError

Edit = Callable[[str, str, str], None]


def message(**fields: str) -> Message:
    return Message(tuple(Field(name, FIELD_TYPES[kind]) for name, kind in fields.items()))


def test_fixed_fields_are_aligned_and_padded_by_reserved_members() -> None:
    layout = message(a="u32", b="u64", text="string", c="u16").placed
    assert [(p.name, p.offset_bytes) for p in layout] == [
        ("a", 0), ("reserved_0", 4), ("b", 8), ("c", 16), ("reserved_1", 18),
    ]  # fmt: skip
    assert message(a="u32", b="u64", text="string", c="u16").fixed_bytes == 24


def test_an_empty_message_has_no_block() -> None:
    assert message().fixed_bytes == 0
    assert message(text="string").fixed_bytes == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('flags = "u32"', 'flags = "u64"'),
        ('flags = "u32"', 'flag = "u32"'),
        ('class = "sync"', 'class = "deferred"'),
        ("[ContextRetainPrimary]", "[ContextKeepPrimary]"),
        ('limits = "list<u64>"', 'limits = "list<u32>"'),
    ],
)
def test_any_change_of_a_command_changes_the_hash(
    root: Path, edit: Edit, old: str, new: str
) -> None:
    path = root / "api" / "cuda" / "commands.toml"
    before = protocol_hash(load_commands(path))
    edit("commands.toml", old, new)
    assert protocol_hash(load_commands(path)) != before


def test_the_order_of_commands_is_part_of_the_hash(root: Path) -> None:
    commands = load_commands(root / "api" / "cuda" / "commands.toml")
    assert protocol_hash(commands) != protocol_hash(commands[::-1])


def test_what_only_the_worker_needs_does_not_change_the_hash(root: Path, edit: Edit) -> None:
    path = root / "api" / "cuda" / "commands.toml"
    before = load_commands(path)
    edit("commands.toml", 'traits = ["staged"]', "traits = []")
    after = load_commands(path)
    assert after != before
    assert protocol_hash(after) == protocol_hash(before)


def test_a_comment_does_not_change_the_hash(root: Path, edit: Edit) -> None:
    path = root / "api" / "cuda" / "commands.toml"
    before = protocol_hash(load_commands(path))
    edit("commands.toml", "[ContextRetainPrimary]", "# a remark\n[ContextRetainPrimary]")
    assert protocol_hash(load_commands(path)) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('class = "sync"', 'class = "slow"', "class must be one of"),
        ('flags = "u32"', 'flags = "u12"', "unknown type 'u12'"),
        ('flags = "u32"', 'Flags = "u32"', "snake_case"),
        ("[ContextRetainPrimary]", "[contextRetain]", "UpperCamelCase"),
        ('stream = "stream"', 'stream = "address"', "names no field of type id"),
        ('class = "async"', 'class = "async"\nreply = { x = "u32" }', "has no reply"),
        (
            'traits = ["staged"]',
            'traits = ["stage"]',
            "'stage'; known: .*changes_launches, .*staged",
        ),
        ('traits = ["staged"]', 'traits = "staged"', "write traits = .*; known: .*staged"),
        ('traits = ["staged"]', 'traits = ["monitoring"]', "commands that are issued at once"),
        ('traits = ["monitoring"]', 'traits = ["staged"]', "that are ordered on a stream"),
    ],
)
def test_a_mistake_in_a_command_is_refused(
    root: Path, edit: Edit, old: str, new: str, said: str
) -> None:
    edit("commands.toml", old, new)
    with pytest.raises(SpecError, match=said):
        load_commands(root / "api" / "cuda" / "commands.toml")
