"""`outboard gpus`: the pool's GPUs and what is free of them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.parser import Parser, print_json, print_table
from outboard.client.pool import open_pool
from outboard.settings import load_settings
from outboard.units import format_mib

_EXAMPLES = """\
  outboard gpus
  outboard gpus --json | jq '.devices[].free_bytes'
"""


def gpus_command(words: list[str]) -> int:
    """List the devices."""
    parser = Parser("gpus", "List the pool's GPUs and what is free of them.", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    pool = open_pool(load_settings())
    answer = pool.get("/v1/devices")
    pool.close()
    if options.json:
        print_json(answer)
        return 0
    devices = answer["devices"]
    assert isinstance(devices, list)
    if not devices:
        print("the pool has no GPUs yet; add a server: outboard tokens create --join node")
        return 0
    print_table(
        ["SERVER", "GPU", "NAME", "FREE", "TOTAL", "SESSIONS", "CAPABILITY", "UUID"],
        [
            [
                device["node"],
                str(device["index"]),
                device["name"],
                format_mib(device["free_bytes"]),
                format_mib(device["total_bytes"]),
                str(len(device["sessions"])),
                device["compute_capability"],
                device["uuid"],
            ]
            for device in devices
        ],
    )
    return 0
