"""Writes a C file that defines, empty, every driver function that some object files need.

SPDX-License-Identifier: Apache-2.0
"""

import subprocess
import sys
from pathlib import Path


def needed_functions(nm: str, objects: list[str]) -> list[str]:
    """The undefined symbols of the objects that carry the driver API's prefix, sorted."""
    listing = subprocess.run(
        [nm, "--undefined-only", "--format=posix", *objects],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = {line.split()[0] for line in listing.splitlines() if " U" in line}
    return sorted(name for name in names if name.startswith("cu") and name[2:3].isupper())


def main() -> int:
    nm, output, *objects = sys.argv[1:]
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    functions = "".join(
        f"int {name}(void) {{ return 999; }}\n" for name in needed_functions(nm, objects)
    )
    text = "/* What libcuda.so.1 is linked as: generated, never loaded. */\n" + functions
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
