"""The facts about the driver's interface: declarations, versions and attributes.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codegen.errors import SpecError

Kind = Literal[
    "scalar",  # an integer or floating-point value
    "enum",
    "device",  # CUdevice: an ordinal
    "address",  # CUdeviceptr
    "handle",  # a pointer to a structure that only the driver knows
    "record",  # a structure or union by value
    "callback",  # a pointer to a function of the program
    "pointer",
    "void",  # what a void* points to
]

PER_THREAD_SUFFIX = re.compile(r"_pt[ds][sz]$")


@dataclass(frozen=True)
class Pointee:
    """What a pointer parameter points to."""

    type: str
    kind: Kind
    size_bytes: int  # 0 for void
    const: bool


@dataclass(frozen=True)
class Parameter:
    """One parameter of a driver function, arrays decayed to pointers."""

    name: str
    type: str  # as the header spells it
    canonical: str  # without typedefs, for headers that generated code does not include
    kind: Kind
    pointee: Pointee | None = None

    @property
    def is_stream(self) -> bool:
        """Whether a null value means the default stream."""
        return self.type == "CUstream"


@dataclass(frozen=True)
class Declaration:
    """The signature of one exported symbol; every driver function returns CUresult."""

    symbol: str
    header: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Variant:
    """What cuGetProcAddress hands out for a base name from one version on."""

    introduced: int  # 1000 * major + 10 * minor
    symbol: str
    per_thread: str | None


@dataclass(frozen=True)
class Facts:
    """Everything extracted from one version of the headers."""

    cuda_version: int
    declarations: Mapping[str, Declaration]
    variants: Mapping[str, tuple[Variant, ...]]  # by base name, oldest first
    attributes: Mapping[str, int]  # CUdevice_attribute
    renamed: Mapping[str, str]  # what a name in a program's source means by cuda.h's macros


def per_thread_base(symbol: str) -> str | None:
    """The symbol that a per-thread variant behaves as, or None if `symbol` is no such variant."""
    match = PER_THREAD_SUFFIX.search(symbol)
    return symbol[: match.start()] if match else None


def load_symbols(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The driver's exports: (functions, the debugger's symbols), in the order of the file."""
    names = path.read_text(encoding="ascii").split()
    debugger = tuple(name for name in names if name.startswith("cudbg"))
    return tuple(name for name in names if not name.startswith("cudbg")), debugger


def to_json(facts: Facts) -> str:
    """The committed form: one line per function, so that a new header version reads as a diff."""
    lines = ["{", f' "cuda_version": {facts.cuda_version},', ' "attributes": {']
    lines += _entries(facts.attributes)
    lines += [" },", ' "renamed": {']
    lines += _entries(facts.renamed)
    lines += [" },", ' "variants": {']
    lines += _entries(
        {
            base: [[v.introduced, v.symbol, v.per_thread] for v in variants]
            for base, variants in facts.variants.items()
        }
    )
    lines += [" },", ' "functions": {']
    lines += _entries(
        {
            symbol: [declaration.header, [_parameter_row(p) for p in declaration.parameters]]
            for symbol, declaration in facts.declarations.items()
        }
    )
    return "\n".join([*lines, " }", "}", ""])


def _entries(values: Mapping[str, object]) -> list[str]:
    rows = [f"  {json.dumps(key)}: {json.dumps(values[key])}" for key in sorted(values)]
    return [row + "," for row in rows[:-1]] + rows[-1:]


def _parameter_row(parameter: Parameter) -> list[object]:
    row: list[object] = [parameter.name, parameter.type, parameter.canonical, parameter.kind]
    if parameter.pointee is not None:
        pointee = parameter.pointee
        row.append([pointee.type, pointee.kind, pointee.size_bytes, pointee.const])
    return row


def load_facts(path: Path) -> Facts:
    """Reads what to_json wrote."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path} is missing; write it with `python -m codegen extract`") from None
    declarations = {
        symbol: Declaration(symbol, header, tuple(_parameter(row) for row in rows))
        for symbol, (header, rows) in document["functions"].items()
    }
    variants = {
        base: tuple(Variant(introduced, symbol, thread) for introduced, symbol, thread in rows)
        for base, rows in document["variants"].items()
    }
    return Facts(
        document["cuda_version"],
        declarations,
        variants,
        document["attributes"],
        document["renamed"],
    )


def _parameter(row: list[object]) -> Parameter:
    name, kind_of_type, canonical, kind, *rest = row
    pointee = Pointee(*rest[0]) if rest and isinstance(rest[0], list) else None
    return Parameter(str(name), str(kind_of_type), str(canonical), kind, pointee)  # type: ignore[arg-type]
