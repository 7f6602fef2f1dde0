"""The annotations of api/cuda/functions/: each function's class and what its pointers mean.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from codegen.documents import read_toml
from codegen.errors import SpecError
from codegen.model import Declaration, Facts, Parameter, per_thread_base
from codegen.traits import read_traits

Direction = Literal["in", "out", "inout"]
Length = Literal[
    "one",  # one element
    "count",  # EXPRESSION elements
    "bytes",  # EXPRESSION bytes
    "string",  # up to and with NUL
    "text",  # a buffer of EXPRESSION bytes that receives a string
    "by",  # the type that the value of the parameter EXPRESSION stands for
    "image",  # the length stands in the image
    "layout",  # by the kernel's parameters
    "opaque",  # not read or written through: given back as it is, or a host address
    "address",  # an address on the device, spelled void*
]

CLASSES = ("local", "async", "sync", "unsupported")
KEYS = {"class", "client", "worker", "stream", "traits", "params", "alias", "answer"}
BODIES = ("override", "generated")
RESULT = re.compile(r"CUDA_ERROR_[A-Z0-9_]+")
EXPRESSION = re.compile(r"(\*?)([A-Za-z_]\w*)(?:-(\d+))?")
WRITE = (
    'write params = {{ {name} = "in" | "out" | "inout" }}, followed by count=N, bytes=N, string, '
    "text=N, by=PARAMETER, image, layout, opaque or address where it is not one element"
)


@dataclass(frozen=True)
class Rule:
    """What a pointer parameter means."""

    direction: Direction
    length: Length = "one"
    expression: str = ""
    optional: bool = False  # may be null


@dataclass(frozen=True)
class Family:
    """Functions unsupported for one reason, and the device attributes that depend on them."""

    name: str
    reason: str
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """One annotated symbol; its per-thread variants are derived from it."""

    declaration: Declaration
    group: str  # the file's name
    klass: str
    client: str | None = None  # None: unsupported, an alias or a constant answer
    worker: str | None = None
    stream: str | None = None
    alias: str | None = None
    family: Family | None = None
    answer: str | None = None  # what every call is told, as by the driver itself
    rules: Mapping[str, Rule] | None = None
    traits: tuple[str, ...] = ()  # of the command of a generated function

    @property
    def symbol(self) -> str:
        """The exported name."""
        return self.declaration.symbol

    def rule(self, parameter: Parameter) -> Rule:
        """The rule of a pointer parameter (verified to exist)."""
        assert self.rules is not None
        return self.rules[parameter.name]


@dataclass(frozen=True)
class Spec:
    """The whole specification of the driver's interface."""

    facts: Facts
    symbols: tuple[str, ...]
    debugger: tuple[str, ...]
    functions: Mapping[str, Function]
    families: tuple[Family, ...]

    def resolve(self, symbol: str) -> Function:
        """The function whose body `symbol` runs: without per-thread suffix, aliases followed."""
        function = self.functions[per_thread_base(symbol) or symbol]
        return self.functions[function.alias] if function.alias else function

    def overrides(self) -> list[Function]:
        """The functions whose client body is written by hand, in alphabetical order."""
        return [f for _, f in sorted(self.functions.items()) if f.client == "override"]

    def generated(self) -> list[Function]:
        """The functions whose client body is generated, in alphabetical order."""
        return [f for _, f in sorted(self.functions.items()) if f.client == "generated"]

    def answers(self) -> list[Function]:
        """The functions that have one answer for every call, in alphabetical order."""
        return [f for _, f in sorted(self.functions.items()) if f.answer is not None]

    def unsupported_attributes(self) -> list[str]:
        """The device attributes that report 0, by value; of two names for one value the first."""
        names = sorted({name for family in self.families for name in family.attributes})
        by_value = {self.facts.attributes[name]: name for name in reversed(names)}
        return [by_value[value] for value in sorted(by_value)]


def load_functions(folder: Path, facts: Facts) -> tuple[dict[str, Function], tuple[Family, ...]]:
    """Reads every file of the folder; refuses a function that is annotated twice or not known."""
    functions: dict[str, Function] = {}
    families: list[Family] = []
    for path in sorted(folder.glob("*.toml")):
        document = read_toml(path)
        if path.stem == "unsupported":
            found = list(_unsupported(path, document, facts, families))
        else:
            found = [_function(path, name, entry, facts) for name, entry in document.items()]
        for function in found:
            if function.symbol in functions:
                other = functions[function.symbol].group
                raise SpecError(f"{path}: {function.symbol} is annotated in {other}.toml as well")
            functions[function.symbol] = function
    return functions, tuple(families)


def _declared(path: Path, name: object, facts: Facts) -> Declaration:
    if not isinstance(name, str) or name not in facts.declarations:
        raise SpecError(f"{path}: {name}: the driver exports no such function")
    if base := per_thread_base(name):
        raise SpecError(f"{path}: {name} is derived from {base}; annotate that one alone")
    return facts.declarations[name]


def _unsupported(
    path: Path, document: Mapping[str, object], facts: Facts, families: list[Family]
) -> Iterator[Function]:
    entries = document.get("family")
    if set(document) != {"family"} or not isinstance(entries, list):
        raise SpecError(f"{path}: write [[family]] tables alone")
    for entry in entries:
        name, reason = str(entry.get("name", "")), str(entry.get("reason", ""))
        if not name or not reason or set(entry) - {"name", "reason", "attributes", "functions"}:
            raise SpecError(f"{path}: a family has name, reason, functions and maybe attributes")
        attributes: list[str] = []
        for pattern in entry.get("attributes", []):
            matches = fnmatch.filter(facts.attributes, pattern)
            if not matches:
                raise SpecError(f"{path}: family {name!r}: no device attribute {pattern}")
            attributes += matches
        family = Family(name, reason, tuple(attributes))
        families.append(family)
        for symbol in entry.get("functions", []):
            declaration = _declared(path, symbol, facts)
            yield Function(declaration, "unsupported", "unsupported", family=family)


def _function(path: Path, name: str, entry: object, facts: Facts) -> Function:
    declaration = _declared(path, name, facts)
    where = f"{path}: {name}"
    if not isinstance(entry, dict):
        raise SpecError(f'{where}: write {name} = {{ class = "...", ... }}')
    if unknown := set(entry) - KEYS:
        raise SpecError(f"{where}: unknown key {min(unknown)!r}; known: {', '.join(sorted(KEYS))}")
    if "alias" in entry:
        if len(entry) > 1:
            raise SpecError(f"{where}: an alias has no other key; its target says the rest")
        return Function(declaration, path.stem, "", alias=str(entry["alias"]))
    if "answer" in entry:
        answer = str(entry["answer"])
        if len(entry) > 1 or not RESULT.fullmatch(answer):
            raise SpecError(f'{where}: write answer = "CUDA_ERROR_..." and no other key')
        return Function(declaration, path.stem, "local", answer=answer)
    klass = entry.get("class")
    if klass not in CLASSES[:-1]:
        raise SpecError(
            f"{where}: class must be local, async or sync (or list it in unsupported.toml)"
        )
    client = entry.get("client", "override")
    worker = entry.get("worker")
    if client not in BODIES or worker not in (None, *BODIES):
        raise SpecError(f'{where}: client and worker are "override" or "generated"')
    if (client == "generated") != (worker is not None):
        raise SpecError(f"{where}: worker is named exactly where client is generated")
    stream = entry.get("stream")
    if "traits" in entry and client != "generated":
        raise SpecError(f"{where}: traits are of a command; write them in commands.toml")
    traits = read_traits(where, entry.get("traits", []), ordered=stream is not None)
    rules = _rules(where, declaration, entry.get("params", {}))
    return Function(
        declaration, path.stem, klass, client, worker, stream, rules=rules, traits=traits
    )


def _rules(where: str, declaration: Declaration, entry: object) -> dict[str, Rule]:
    if not isinstance(entry, dict):
        raise SpecError(f'{where}: params must be a table of PARAMETER = "DIRECTION ..."')
    parameters = {p.name: p for p in declaration.parameters}
    for name in entry:
        if name not in parameters:
            raise SpecError(f"{where}: it has no parameter {name}; it has {', '.join(parameters)}")
        if parameters[name].kind != "pointer":
            raise SpecError(f"{where}: parameter {name} is passed by value and needs no annotation")
    rules: dict[str, Rule] = {}
    for parameter in declaration.parameters:
        if parameter.kind != "pointer":
            continue
        place = f"{where}: parameter {parameter.name} ({parameter.type})"
        if parameter.name not in entry:
            raise SpecError(
                f"{place}: its direction is not known; {WRITE.format(name=parameter.name)}"
            )
        rules[parameter.name] = _rule(place, parameter, str(entry[parameter.name]), parameters)
    return rules


def _rule(place: str, parameter: Parameter, text: str, parameters: Mapping[str, Parameter]) -> Rule:
    direction, *words = text.split() or [""]
    if direction not in ("in", "out", "inout"):
        raise SpecError(
            f"{place}: {text!r} names no direction; {WRITE.format(name=parameter.name)}"
        )
    optional = "optional" in words
    lengths = [word for word in words if word != "optional"]
    if len(lengths) > 1:
        raise SpecError(f"{place}: {text!r} has more than one length")
    length, _, expression = (lengths[0] if lengths else "one").partition("=")
    if length not in get_args(Length) or (expression != "") != (
        length in ("count", "bytes", "text", "by")
    ):
        raise SpecError(f"{place}: {text!r} is not understood; {WRITE.format(name=parameter.name)}")
    if expression and not expression.isdigit():
        match = EXPRESSION.fullmatch(expression)
        if match is None or match[2] not in parameters:
            raise SpecError(f"{place}: {expression!r} is no parameter of this function")
    assert parameter.pointee is not None
    if parameter.pointee.kind == "void" and length in ("one", "count"):
        raise SpecError(f"{place}: its length is not known; {WRITE.format(name=parameter.name)}")
    if parameter.pointee.kind == "scalar" and parameter.pointee.type == "char" and length == "one":
        raise SpecError(f"{place}: its length is not known; write string, text=N or bytes=N")
    if parameter.pointee.const and direction != "in" and length != "opaque":
        raise SpecError(f"{place}: it points to const, so it can only be in")
    return Rule(direction, length, expression, optional)  # type: ignore[arg-type]
