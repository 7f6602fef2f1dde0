"""Loads the whole specification and refuses what is missing, doubled or contradictory.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

from codegen.annotations import Function, Spec, load_functions
from codegen.errors import SpecError
from codegen.model import load_facts, load_symbols, per_thread_base

SYMBOLS = "symbols-580.txt"
DECLARATIONS = "declarations/13.0.json"


def declarations_path(root: Path) -> Path:
    """Where the extracted facts are committed."""
    return root / "api" / "cuda" / DECLARATIONS


def load_spec(root: Path) -> Spec:
    """The verified specification of the checkout `root`."""
    api = root / "api" / "cuda"
    facts = load_facts(api / DECLARATIONS)
    symbols, debugger = load_symbols(api / SYMBOLS)
    functions, families = load_functions(api / "functions", facts)
    spec = Spec(facts, symbols, debugger, functions, families)
    _check_symbols(spec)
    for function in functions.values():
        if function.alias is not None:
            _check_alias(spec, function, function.alias)
        elif function.klass != "unsupported" and function.declaration.header == "":
            raise SpecError(
                f"{function.symbol}: no header declares it, so it can only be unsupported"
            )
    return spec


def _check_header(function: Function) -> None:
    """Only cuda.h is included by generated code; a call without parameters needs no types."""
    declaration = function.declaration
    if not declaration.header or (declaration.header != "cuda.h" and declaration.parameters):
        where = f"{function.group}.toml: {function.symbol}"
        raise SpecError(f"{where}: cuda.h does not declare it, so it can only be unsupported")


def _check_symbols(spec: Spec) -> None:
    if set(spec.symbols) != set(spec.facts.declarations):
        odd = sorted(set(spec.symbols) ^ set(spec.facts.declarations))
        raise SpecError(
            f"{DECLARATIONS} and {SYMBOLS} differ in {', '.join(odd[:5])}; extract again"
        )
    if len(set(spec.symbols)) != len(spec.symbols):
        raise SpecError(f"{SYMBOLS} names a symbol twice")
    missing = [s for s in spec.symbols if (per_thread_base(s) or s) not in spec.functions]
    if missing:
        raise SpecError(
            f"{missing[0]} is annotated nowhere ({len(missing)} are not); write it into the file "
            "of its group in api/cuda/functions/, or into unsupported.toml with a reason"
        )


def _check_alias(spec: Spec, function: Function, target: str) -> None:
    where = f"{function.group}.toml: {function.symbol}"
    other = spec.functions.get(target)
    if other is None or other.alias is not None or other.klass == "unsupported":
        raise SpecError(f"{where}: its alias {target} is no function with a body")

    def shape(one: Function) -> list[str]:
        return [p.canonical for p in one.declaration.parameters]

    if shape(function) != shape(other):
        raise SpecError(f"{where}: its parameters differ from {target}'s, so it cannot be an alias")
