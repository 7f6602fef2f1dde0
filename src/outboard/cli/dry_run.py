"""`--dry-run` of `run` and `request`: where it would be placed, or what is in the way.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Any

from outboard.cli.parser import print_json
from outboard.client.pool import open_pool
from outboard.errors import EXIT_WAITED_TOO_LONG
from outboard.model.session_file import find_session_file
from outboard.run.launcher import RunOptions
from outboard.settings import load_settings
from outboard.units import format_mib

_MOST_LINES = 20


def rehearse(options: RunOptions, *, joins: bool) -> int:
    """Say what would become of a request: 0 if it would start now, 124 if it would wait.

    What no state of the pool could grant is refused as it would be (125). With `joins` a session
    that there is already would be used.
    """
    session = find_session_file() if joins and not options.asks else None
    if session is not None:
        if options.as_json:
            print_json({"dry_run": True, "fits": True, "session_file": session})
        else:
            print(f"it would use the session that there is: {session}")
        return 0
    pool = open_pool(load_settings())
    try:
        answer: dict[str, Any] = pool.rehearse(
            options.gpus or 1, options.share or {}, options.wishes
        )
    finally:
        pool.close()
    if options.as_json:
        print_json(answer)
    else:
        _print(answer)
    return 0 if answer["fits"] else EXIT_WAITED_TOO_LONG


def _print(answer: dict[str, Any]) -> None:
    if answer["fits"]:
        print("it would start now:")
        for number, device in enumerate(answer["devices"]):
            share = format_mib(device["share_bytes"])
            where = f"{device['node']}, GPU {device['index']} there"
            print(f"  GPU {number}: {device['name']}, {share}, on {where}")
        return
    place = f", number {answer['position']} in the queue" if answer["position"] else ""
    print(f"it would wait{place}: {answer['reason']}")
    if answer["starts"]:
        print(f"it should start at {answer['starts']}")
    needs = {(one["node"], one["index"]): one["lacking_bytes"] for one in answer["needs"]}
    for (node, index), lacking_bytes in needs.items():
        print(f"  {node} GPU {index}: {format_mib(lacking_bytes)} more of it have to be free")
    others = [one for one in answer["pool"] if (one["node"], one["index"]) not in needs]
    for one in others[:_MOST_LINES]:
        print(f"  {one['node']} GPU {one['index']}: {one['obstacle'] or 'it would do'}")
    if len(others) > _MOST_LINES:
        print(f"  and {len(others) - _MOST_LINES} more GPUs; all of them: --json")
