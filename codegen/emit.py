"""Renders the templates into the build tree, touching only the files whose content changed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mako.lookup import TemplateLookup

from codegen.annotations import Spec
from codegen.bodies import MAX_ARRAY_BYTES, Body, body, client_body, worker_body
from codegen.commands import Command, check_unique, load_commands, protocol_hash
from codegen.documents import read_toml
from codegen.errors import SpecError
from codegen.model import Declaration, per_thread_base
from codegen.traits import TRAITS
from codegen.verify import load_spec

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Export:
    """One exported function and what it calls; None: it is unsupported."""

    symbol: str
    parameters: str
    arguments: str
    target: str | None
    null_streams: tuple[str, ...] = ()  # parameters whose null means the thread's own stream
    scoped: bool = False  # the stream is implied or in a structure


class Renderer:
    """The templates; an undefined name in one is an error, not an empty string."""

    def __init__(self) -> None:
        self._lookup = TemplateLookup(directories=[str(TEMPLATES)], strict_undefined=True)

    def __call__(self, template: str, **values: object) -> str:
        """The text of one template."""
        text: str = self._lookup.get_template(template + ".mako").render(**values)
        return text


def outputs(root: Path) -> Mapping[str, str]:
    """Every generated file, by its name below the output folder."""
    spec = load_spec(root)
    bodies = [body(function) for function in spec.generated()]
    commands = all_commands(root, bodies)
    render = Renderer()
    files = _wire_files(render, commands)
    files.update(_shim_files(render, root, spec, bodies))
    files.update(_worker_files(render, root, spec, commands, bodies))
    return files


def all_commands(root: Path, bodies: Sequence[Body]) -> tuple[Command, ...]:
    """The hand-written commands, then those of the generated functions, in the order of numbers."""
    written = load_commands(root / "api" / "cuda" / "commands.toml")
    commands = (*written, *(one.command for one in bodies))
    check_unique(commands)
    return commands


def _wire_files(render: Renderer, commands: Sequence[Command]) -> dict[str, str]:
    digest = protocol_hash(commands)
    return {
        "commands.hpp": render("commands.hpp", commands=commands),
        "protocol.hpp": render("protocol.hpp", commands=commands, traits=TRAITS, digest=digest),
        "arrays.hpp": render("arrays.hpp", max_array_bytes=MAX_ARRAY_BYTES),
    }


def _shim_files(render: Renderer, root: Path, spec: Spec, bodies: Sequence[Body]) -> dict[str, str]:
    functions, buffers = _debugger(root, spec)
    data = [name for name in spec.debugger if name not in functions and name not in buffers]
    numbers = {family.name: number for number, family in enumerate(spec.families, start=1)}
    resolved = [spec.resolve(symbol) for symbol in spec.symbols]
    bases = sorted(spec.facts.variants.items())
    firsts = [sum(len(entries) for _, entries in bases[:i]) for i in range(len(bases))]
    foreign = [s for s in spec.symbols if spec.facts.declarations[s].header not in ("cuda.h", "")]
    return {
        "shim_api.hpp": render("shim_api.hpp", spec=spec, parameters=parameters),
        "shim_exports.cpp": render(
            "shim_exports.cpp",
            spec=spec,
            exports=[export(spec, symbol) for symbol in spec.symbols],
            reason_of=[numbers[f.family.name] if f.family else 0 for f in resolved],
            rows=_rows,
            debugger_data=data,
            debugger_buffers=sorted(buffers.items()),
            debugger_functions=functions,
        ),
        "shim_bodies.cpp": render(
            "shim_bodies.cpp",
            spec=spec,
            bodies=bodies,
            client_body=client_body,
            parameters=parameters,
        ),
        "absent_shim_bodies.cpp": render(
            "absent_shim_bodies.cpp", spec=spec, parameters=parameters
        ),
        "shim.version": render("shim.version", spec=spec),
        "proc_table.hpp": render("proc_table.hpp"),
        "proc_table.cpp": render(
            "proc_table.cpp",
            spec=spec,
            parameters=parameters,
            bases=bases,
            firsts=firsts,
            foreign=foreign,
        ),
        "unsupported_attributes.hpp": render("unsupported_attributes.hpp", spec=spec),
    }


def _worker_files(
    render: Renderer, root: Path, spec: Spec, commands: Sequence[Command], bodies: Sequence[Body]
) -> dict[str, str]:
    driver = _driver(root, spec, bodies)
    return {
        "execute.hpp": render("execute.hpp", commands=commands, bodies=bodies),
        "dispatch.cpp": render("dispatch.cpp", commands=commands),
        "absent_worker_bodies.cpp": render(
            "absent_worker_bodies.cpp", commands=commands, bodies=bodies
        ),
        "worker_bodies.cpp": render("worker_bodies.cpp", bodies=bodies, worker_body=worker_body),
        "driver_table.hpp": render("driver_table.hpp", driver=driver),
        "driver_table.cpp": render("driver_table.cpp", driver=driver),
    }


def parameters(declaration: Declaration) -> str:
    """The parameter list of a definition, as it stands between the parentheses.

    A function of another header than cuda.h is unsupported: its arguments, whose types are not
    known here, are left where the caller put them.
    """
    if declaration.header != "cuda.h":
        return ""
    return ", ".join(f"{p.type.replace(' *', '*')} {p.name}" for p in declaration.parameters)


def export(spec: Spec, symbol: str) -> Export:
    """How one export reaches its body."""
    declaration = spec.facts.declarations[symbol]
    function = spec.resolve(symbol)
    arguments = ", ".join(p.name for p in declaration.parameters)
    if function.klass == "unsupported":
        return Export(symbol, parameters(declaration), arguments, None)
    if function.answer is not None:
        return Export(symbol, parameters(declaration), "", function.symbol)
    streams: tuple[str, ...] = ()
    per_thread = per_thread_base(symbol) is not None
    if per_thread:
        streams = tuple(p.name for p in declaration.parameters if p.is_stream)
    scoped = per_thread and not streams
    target = function.symbol
    return Export(symbol, parameters(declaration), arguments, target, streams, scoped)


def _rows(values: Sequence[int], width: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(values), width):
        yield values[start : start + width]


def _debugger(root: Path, spec: Spec) -> tuple[list[str], dict[str, int]]:
    path = root / "api" / "cuda" / "debugger.toml"
    document = read_toml(path)
    functions: list[str] = document.get("functions", [])
    buffers: dict[str, int] = document.get("buffers", {})
    for name in (*functions, *buffers):
        if name not in spec.debugger:
            raise SpecError(f"{path}: {name}: the driver exports no such symbol")
    return functions, buffers


def _driver(root: Path, spec: Spec, bodies: Sequence[Body]) -> list[tuple[str, bool]]:
    """The symbols of the worker's table, each with whether a driver must have it."""
    path = root / "api" / "cuda" / "driver.toml"
    document = read_toml(path)
    table = dict.fromkeys((one.function.symbol for one in bodies), False)
    for required in (False, True):
        for symbol in document.get("required" if required else "optional", []):
            declaration = spec.facts.declarations.get(symbol)
            if declaration is None or declaration.header != "cuda.h":
                raise SpecError(f"{path}: {symbol}: cuda.h declares no such function")
            table[symbol] = required
    return sorted(table.items())


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
