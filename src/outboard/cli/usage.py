"""`outboard usage`: what was held, by whom, exactly.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys
from typing import Any

from outboard.cli.calls import call
from outboard.cli.parser import Parser, print_json, print_table
from outboard.units import GIB

_EXAMPLES = """\
  outboard usage
  outboard usage --since 2026-11-01 --by user,day --format csv
"""


def usage_command(words: list[str]) -> int:
    """Print the account of an interval."""
    parser = Parser("usage", "What was held of the pool, by user, day and more.", _EXAMPLES)
    parser.add_argument("--since", metavar="TIME", help="ISO 8601 (a day ago)")
    parser.add_argument("--until", metavar="TIME", help="ISO 8601 (now)")
    parser.add_argument(
        "--by", default="user", metavar="KEYS", help="user, device, node, session, host, day"
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--json", action="store_true", help="as --format json")
    options = parser.parse_args(words)
    from urllib.parse import urlencode

    asked = {"since": options.since, "until": options.until, "by": options.by}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    answer = call("GET", f"/v1/usage?{query}")
    if options.json or options.format == "json":
        print_json(answer)
    elif options.format == "csv":
        _print_csv(answer)
    else:
        keys = answer["by"]
        print_table(
            [*(key.upper() for key in keys), "GPU-HOURS", "GIB-HOURS"],
            [
                [*(line[key] for key in keys), f"{line['gpu_s'] / 3600:.3f}", _gib_hours(line)]
                for line in answer["held"]
            ],
        )
    return 0


def _gib_hours(line: dict[str, Any]) -> str:
    return f"{line['byte_us'] / GIB / 3.6e9:.3f}"


def _print_csv(answer: dict[str, Any]) -> None:
    import csv

    fields = [*answer["by"], "byte_us", "gpu_ppm_us"]
    writer = csv.writer(sys.stdout)
    writer.writerow(fields)
    writer.writerows([line[field] for field in fields] for line in answer["held"])
