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
    options = parser.parse_args(arguments)
    try:
        return _emit(options.out)
    except SpecError as error:
        print(f"codegen: {error}", file=sys.stderr)
        return 1


def _emit(folder: Path) -> int:
    from codegen.emit import outputs, write

    write(folder, outputs(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
