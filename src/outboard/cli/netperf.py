"""`outboard netperf`: round trip and bandwidth to a GPU server.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.parser import Parser, print_json
from outboard.cli.run import wait_s_of
from outboard.run.netperf import SHORT, WHOLE, netperf

_EXAMPLES = """\
  outboard netperf gpu1
  outboard netperf gpu1 --json | jq .round_trip_p50_us
"""


def netperf_command(words: list[str]) -> int:
    """Measure and print."""
    parser = Parser(
        "netperf",
        "Measure the way to a GPU server as programs have it, with the session's protection: a\n"
        "small share of a GPU there is used for some seconds.",
        _EXAMPLES,
    )
    parser.add_argument("node", nargs="?", help="which server, as `outboard nodes` names it (any)")
    parser.add_argument("--short", action="store_true", help="less exactly, in half a second")
    parser.add_argument(
        "--wait", metavar="TIME", help="wait for a busy pool no longer than this: 90s, 5m, 1h"
    )
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    wait_s = wait_s_of(options.wait, no_wait=options.wait is None)
    measured = netperf(options.node, SHORT if options.short else WHOLE, wait_s)
    if options.json:
        print_json(measured)
        return 0
    rows = {
        "node": f"{measured['node']} ({measured['address']}), protection {measured['protection']}",
        "round trip": f"p50 {measured['round_trip_p50_us']:.0f} µs,"
        f" p99 {measured['round_trip_p99_us']:.0f} µs ({measured['round_trips']} trips)",
        "to it": _rate(measured["to_node_bytes_per_s"]),
        "from it": _rate(measured["from_node_bytes_per_s"]),
    }
    for name, value in rows.items():
        print(f"{name + ':':12}{value}")
    return 0


def _rate(bytes_per_s: int) -> str:
    return f"{bytes_per_s / (1 << 20):.0f} MiB/s ({bytes_per_s * 8 / 1e9:.2f} Gbit/s)"
