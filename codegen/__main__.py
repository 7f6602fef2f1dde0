"""The generator's command line: `python -m codegen emit --out build/generated`.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from codegen.errors import SpecError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; a mistake in the specification is one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m codegen", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    emit = commands.add_parser("emit", help="write the generated sources")
    emit.add_argument("--out", type=Path, required=True, help="output folder, in the build tree")
    extract = commands.add_parser("extract", help="refresh api/cuda/declarations/ from headers")
    extract.add_argument("--include", type=Path, required=True, help="folder of cuda.h")
    commands.add_parser("verify", help="check the specification, the facts and the coverage page")
    commands.add_parser("docs", help="write docs/reference/coverage.md")
    options = parser.parse_args(arguments)
    try:
        if options.command == "emit":
            return _emit(options.out)
        if options.command == "extract":
            return _extract(options.include)
        return _docs() if options.command == "docs" else _verify()
    except SpecError as error:
        print(f"codegen: {error}", file=sys.stderr)
        return 1


def _emit(folder: Path) -> int:
    from codegen.emit import outputs, write

    write(folder, outputs(ROOT))
    return 0


def _extract(include: Path) -> int:
    from codegen.emit import write
    from codegen.extract import extract
    from codegen.model import load_symbols, to_json
    from codegen.verify import SYMBOLS, declarations_path

    functions, _ = load_symbols(ROOT / "api" / "cuda" / SYMBOLS)
    facts = extract(include, functions)
    path = declarations_path(ROOT)
    expected = f"{facts.cuda_version // 1000}.{facts.cuda_version % 1000 // 10}.json"
    if path.name != expected:
        raise SpecError(
            f"{include} has the headers of {path.with_name(expected).stem}, not {path.stem}"
        )
    changed = write(path.parent, {path.name: to_json(facts)})
    state = "written" if changed else "up to date"
    print(f"{path.relative_to(ROOT)}: {len(facts.declarations)} functions, {state}")
    return 0


def _docs() -> int:
    from codegen.coverage import PAGE, page
    from codegen.emit import write
    from codegen.verify import load_spec

    changed = write(ROOT / PAGE.parent, {PAGE.name: page(ROOT, load_spec(ROOT))})
    print(f"{PAGE}: {'written' if changed else 'up to date'}")
    return 0


def _verify() -> int:
    from codegen.coverage import PAGE, page
    from codegen.emit import outputs
    from codegen.verify import load_spec

    spec = load_spec(ROOT)
    outputs(ROOT)
    _verify_facts()
    committed = ROOT / PAGE
    if not committed.exists() or committed.read_text(encoding="utf-8") != page(ROOT, spec):
        raise SpecError(f"{PAGE} is out of date; run `make docs`")
    print(
        f"codegen: {len(spec.symbols)} functions, {len(spec.overrides())} by hand, "
        f"{len(spec.generated())} generated"
    )
    return 0


def _verify_facts() -> None:
    """Compares the committed facts with the headers, where those and libclang are installed."""
    include = _headers()
    if include is None or find_spec("clang") is None:
        print("codegen: CUDA's headers or libclang are not installed; facts not compared")
        return
    from codegen.extract import extract
    from codegen.model import load_symbols, to_json
    from codegen.verify import SYMBOLS, declarations_path

    functions, _ = load_symbols(ROOT / "api" / "cuda" / SYMBOLS)
    path = declarations_path(ROOT)
    if to_json(extract(include, functions)) != path.read_text(encoding="utf-8"):
        raise SpecError(
            f"{path.relative_to(ROOT)} differs from {include}; run `python -m codegen extract`"
        )


def _headers() -> Path | None:
    """The headers of the wheel nvidia-cuda-runtime in this environment."""
    for folder in map(Path, sys.path):
        include = folder / "nvidia" / "cu13" / "include"
        if (include / "cuda.h").exists():
            return include
    return None


if __name__ == "__main__":
    sys.exit(main())
