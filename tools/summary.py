"""Adds up the test reports of a folder: `N passed, N failed, N skipped`.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def count(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped test cases of one JUnit file."""
    passed = failed = skipped = 0
    for case in ET.parse(report).iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"} or case.get("status") == "fail":
            failed += 1
        elif "skipped" in outcomes or case.get("status") in {"notrun", "disabled"}:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main(folder: str) -> int:
    totals = [0, 0, 0]
    for report in sorted(Path(folder).glob("*.xml")):
        counts = count(report)
        totals = [total + number for total, number in zip(totals, counts, strict=True)]
    passed, failed, skipped = totals
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
