"""The generator's command line: `python -m codegen emit --out build/generated`.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import sys
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
    options = parser.parse_args(arguments)
    try:
        return _emit(options.out) if options.command == "emit" else _extract(options.include)
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

    functions, _ = load_symbols(ROOT / "api" / "cuda" / "symbols-580.txt")
    facts = extract(include, functions)
    version = f"{facts.cuda_version // 1000}.{facts.cuda_version % 1000 // 10}"
    name = f"{version}.json"
    changed = write(ROOT / "api" / "cuda" / "declarations", {name: to_json(facts)})
    state = "written" if changed else "up to date"
    print(f"api/cuda/declarations/{name}: {len(facts.declarations)} functions, {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
