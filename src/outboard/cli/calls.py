"""One call of the pool's API for a command, and how its answer is shown.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from outboard.client.pool import open_pool
from outboard.settings import load_settings


def call(
    method: str, path: str, body: dict[str, object] | None = None, *, start: bool = False
) -> dict[str, Any]:
    """The answer; a pool of this machine that does not run is started for it only if told."""
    pool = open_pool(load_settings(), start=start)
    try:
        return pool.call(method, path, body)
    finally:
        pool.close()


def path_of(*parts: str) -> str:
    """A path of the API; its parts are people's words, and may hold anything."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def shown_time(text: str | None) -> str:
    """A time of the API as tables show it, to the second."""
    return "-" if text is None else f"{text[:10]} {text[11:19]}Z"


def shown(value: object) -> str:
    """A field as a table shows it: what is not known is N/A, never 0; what is not said, a dash."""
    if value is None:
        return "N/A"
    if value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(str(item) for item in value) or "-"
    return str(value)
