"""Every message of the troubleshooting page is one that the sources have.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


@cache
def sources() -> str:
    """All sources, with literals that were split over lines put together again."""
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "native").rglob("*.cpp")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    # What the shim puts in front of its reasons.
    return text.replace('"no GPUs: " + ', "").replace("{", "\n").replace("}", "\n")


def parts(message: str) -> list[str]:
    """The pieces between what varies."""
    return [part for part in re.split("…", message.removeprefix("no GPUs: ")) if part.strip(" ;:")]


def test_the_page_has_messages() -> None:
    assert len(MESSAGES) > 15


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_exists(message: str) -> None:
    missing = [part for part in parts(message) if part.strip(" ;:") not in sources()]
    assert missing == []
