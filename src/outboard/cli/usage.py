"""`outboard usage`: what was held, by whom, exactly, and what was used of it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys
from typing import Any

from outboard.cli.calls import call, shown, shown_time
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError
from outboard.units import GIB, format_mib, parse_duration_s

_EXAMPLES = """\
  outboard usage
  outboard usage --since 7d --by node,user
  outboard usage --since 2026-11-01 --by user,day --format csv
  outboard usage --by session,uid,process
"""
_HELD = ("byte_us", "gpu_ppm_us")
_USED = ("busy_us", "calls", "peak_bytes", "processes")


def usage_command(words: list[str]) -> int:
    """Print the account of an interval."""
    parser = Parser(
        "usage", "What was held of the pool and what was used, by user, day and more.", _EXAMPLES
    )
    parser.add_argument("--since", metavar="TIME", help="2026-11-01T08:00, or so long ago: 7d (1d)")
    parser.add_argument("--until", metavar="TIME", help="likewise (now)")
    parser.add_argument(
        "--by",
        default="user",
        metavar="KEYS",
        help="user, device, node, session, host, day; of what was used also uid, process",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--json", action="store_true", help="as --format json")
    options = parser.parse_args(words)
    from urllib.parse import urlencode

    since, until = moment("--since", options.since), moment("--until", options.until)
    asked = {"since": since, "until": until, "by": options.by}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    answer = call("GET", f"/v1/usage?{query}", start=True)
    if options.json or options.format == "json":
        print_json(answer)
    elif options.format == "csv":
        _print_csv(answer)
    elif not answer["held"] and not answer["used"]:
        first, last = shown_time(answer["since"]), shown_time(answer["until"])
        print(f"nothing was held from {first} to {last}")
    else:
        _print_table(answer)
    return 0


def moment(option: str, text: str | None) -> str | None:
    """A time as the API takes it; without a zone it is this machine's."""
    if text is None:
        return None
    import datetime as dt

    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        try:
            found = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=parse_duration_s(text))
        except (UsageError, OverflowError) as error:
            raise UsageError(
                f"{option} {text}: not a time",
                "write 2026-11-01, 2026-11-01T08:00 or, for so long ago, 12h or 7d",
            ) from error
    return found.astimezone(dt.UTC).isoformat()


def _lines(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Held and used by the same keys in one line each; None is what is not known."""
    keys = answer["by"]
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for kind in ("held", "used"):
        for line in answer[kind]:
            key = tuple(line[name] for name in keys)
            found.setdefault(key, dict.fromkeys((*keys, *_HELD, *_USED))).update(line)
    return [found[key] for key in sorted(found)]


def _print_table(answer: dict[str, Any]) -> None:
    keys = answer["by"]
    print_table(
        [*(key.upper() for key in keys), "GPU-HOURS", "GIB-HOURS", "BUSY-HOURS", "CALLS", "PEAK"],
        [
            [
                *(line[key] for key in keys),
                _hours(line["gpu_ppm_us"], 1e6),
                _hours(line["byte_us"], GIB),
                _hours(line["busy_us"], 1),
                shown(line["calls"]),
                shown(line["peak_bytes"] and format_mib(line["peak_bytes"])),
            ]
            for line in _lines(answer)
        ],
    )


def _hours(amount_us: int | None, unit: float) -> str:
    return shown(None if amount_us is None else f"{amount_us / unit / 3.6e9:.3f}")


def _print_csv(answer: dict[str, Any]) -> None:
    import csv

    fields = [*answer["by"], *_HELD, *_USED]
    writer = csv.writer(sys.stdout)
    writer.writerow(fields)
    writer.writerows([line[field] for field in fields] for line in _lines(answer))
