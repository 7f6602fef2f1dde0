"""The page that says of every function its class, its bodies and the tests that name it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codegen.annotations import Family, Function, Spec
from codegen.model import per_thread_base

PAGE = Path("docs/reference/coverage.md")
SOURCES = {".c", ".cpp", ".cu", ".hpp", ".py"}
NAME = re.compile(r"\bcu[A-Z]\w*")
AS_WRITTEN = "#define __CUDA_API_VERSION_INTERNAL"  # then cuda.h renames nothing
SHOWN_TESTS = 3

HEAD = """\
# Coverage of the CUDA driver API

<!-- Written by `make docs`; do not edit. -->

A `libcuda.so.1` of driver 580 exports {total} functions, and so does Outboard's. The class of a
function says what a call costs: *local* is answered in the program's process, *async* is queued and
returns at once, *sync* waits for one round trip. An *unsupported* function returns
`CUDA_ERROR_NOT_SUPPORTED` and says so once on stderr; device attributes that promise it report 0.
Where the client's column names an error, every call gets that, as from NVIDIA's driver.

A function is *covered* if a test names it, in the sources of `tests/` or of a native test; names in
a program's source mean what `cuda.h` makes of them (`cuMemAlloc` is `cuMemAlloc_v2`, but in a
source that defines `__CUDA_API_VERSION_INTERNAL` every name means itself). Functions that only
CUDA's own libraries call on a test's behalf do not count. Variants for per-thread default streams
(`_ptsz`, `_ptds`) are derived from their function and counted with it.
"""


@dataclass(frozen=True)
class Row:
    """One annotated symbol on the page."""

    function: Function
    target: Function  # itself, unless an alias
    variant: str | None  # the suffix of its per-thread variant
    tests: tuple[str, ...]


def naming_tests(root: Path, spec: Spec) -> Mapping[str, tuple[str, ...]]:
    """The test files that name each symbol, relative to the root."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in _test_files(root):
        text = path.read_text(encoding="utf-8", errors="replace")
        renamed = {} if AS_WRITTEN in text else spec.facts.renamed
        for name in set(NAME.findall(text)):
            symbol = renamed.get(name, name)
            symbol = per_thread_base(symbol) or symbol
            if symbol in spec.functions:
                found[symbol].add(path.relative_to(root).as_posix())
    return {symbol: tuple(sorted(names)) for symbol, names in found.items()}


def _test_files(root: Path) -> Iterator[Path]:
    """Sources of tests, without those of the generator: they name functions but call no driver."""
    folders = [root / "tests", *sorted((root / "native").glob("**/tests"))]
    skipped = (root / "native" / "generated", root / "tests" / "unit" / "codegen")
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in SOURCES and not any(path.is_relative_to(s) for s in skipped):
                yield path


def rows(root: Path, spec: Spec) -> list[Row]:
    """All annotated symbols in alphabetical order."""
    tests = naming_tests(root, spec)
    variants = {base: s for s in spec.symbols if (base := per_thread_base(s)) is not None}
    return [
        Row(
            function,
            spec.resolve(symbol),
            variants[symbol].removeprefix(symbol) if symbol in variants else None,
            tests.get(symbol, ()),
        )
        for symbol, function in sorted(spec.functions.items())
    ]


def page(root: Path, spec: Spec) -> str:
    """The whole page."""
    table = rows(root, spec)
    parts = [HEAD.format(total=len(spec.symbols)), *_totals(table)]
    groups = sorted({row.function.group for row in table} - {"unsupported"})
    for group in groups:
        parts += _group(group, [row for row in table if row.function.group == group])
    parts += ["\n## Unsupported\n"]
    for family in spec.families:
        parts += _family(family, [row for row in table if row.function.family == family])
    return "\n".join(parts).rstrip() + "\n"


def _totals(table: Iterable[Row]) -> Iterator[str]:
    counts: dict[str, list[int]] = {c: [0, 0, 0] for c in ("local", "async", "sync", "unsupported")}
    for row in table:
        count = counts[row.target.klass]
        count[0] += 1
        count[1] += row.variant is not None
        count[2] += bool(row.tests)
    yield "| class | functions | per-thread variants | named by a test |"
    yield "|---|---:|---:|---:|"
    for klass, (functions, variants, covered) in counts.items():
        yield f"| {klass} | {functions} | {variants} | {covered} |"
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    yield f"| **all** | {sums[0]} | {sums[1]} | {sums[2]} |"


def _group(group: str, table: Iterable[Row]) -> Iterator[str]:
    yield f"\n## {group.capitalize()}\n"
    yield "| function | class | client | worker | tests |"
    yield "|---|---|---|---|---|"
    for row in table:
        name = f"`{row.function.symbol}`" + (f" `{row.variant}`" if row.variant else "")
        client = _client(row)
        worker = "" if row.function.alias else _worker(row.function)
        yield f"| {name} | {row.target.klass} | {client} | {worker} | {_tests(row.tests)} |"


def _client(row: Row) -> str:
    if row.function.alias:
        return f"as `{row.target.symbol}`"
    if row.target.answer is not None:
        return f"`{row.target.answer}`, as the driver"
    return "generated" if row.function.client == "generated" else "by hand"


def _worker(function: Function) -> str:
    if function.klass == "local":
        return ""
    return "generated" if function.worker == "generated" else "by hand"


def _tests(names: tuple[str, ...]) -> str:
    if not names:
        return "not covered"
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN_TESTS])
    rest = len(names) - SHOWN_TESTS
    return f"{shown} and {rest} more" if rest > 0 else shown


def _family(family: Family, table: list[Row]) -> Iterator[str]:
    yield f"\n### {family.name.capitalize()}\n"
    yield family.reason
    if family.attributes:
        number = len(family.attributes)
        yield f"{number} device attribute{'s report' if number > 1 else ' reports'} 0."
    if table:
        names = (row.function.symbol + (f"[{row.variant}]" if row.variant else "") for row in table)
        yield "\n" + ", ".join(f"`{name}`" for name in names)
