"""Reading the specification's TOML files.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from codegen.errors import SpecError


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file; a file that is missing or does not parse is a mistake with a place."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path} is missing") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: {error}") from None
