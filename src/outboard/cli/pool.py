"""`outboard pool` and `up`: this machine's own pool.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.parser import Parser, print_json
from outboard.client.pool import open_pool
from outboard.errors import PoolUnreachable, UsageError
from outboard.settings import load_settings
from outboard.units import format_duration

_EXAMPLES = """\
  outboard pool status
  outboard pool stop
"""


def pool_command(words: list[str]) -> int:
    """Show or stop the pool."""
    parser = Parser("pool", "Show or stop this machine's own pool.", _EXAMPLES)
    parser.add_argument("action", choices=("status", "stop"), help="what to do")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    parser.add_argument("--force", action="store_true", help="stop: end its sessions as well")
    options = parser.parse_args(words)
    settings = load_settings()
    try:
        pool = open_pool(settings, start=False)
    except PoolUnreachable:
        if settings.find("pool"):
            raise
        if options.json:
            print_json({"running": False})
        else:
            print("no pool runs; `outboard run` and `outboard gpus` start it")
        return 0
    if options.action == "stop":
        answer: dict[str, object] = {"running": False, **pool.stop(force=options.force)}
    else:
        answer = {"running": True, **pool.get("/v1/status")}
    pool.close()
    if options.json:
        print_json(answer)
    elif options.action == "stop":
        print(f"stopped; {answer['ended_sessions']} sessions were ended")
    else:
        _print_status(answer)
    return 0


def up_command(words: list[str]) -> int:
    """Start this machine's own pool, and keep it."""
    parser = Parser(
        "up",
        "Start this machine's own pool now, with workers that wait warm, and keep it until\n"
        "`outboard pool stop`. Without this, `outboard run` starts it, and it ends unused.",
        "  outboard up\n",
    )
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    settings = load_settings()
    configured = settings.find("pool")
    if configured is not None:
        raise UsageError(
            f"{configured[1]} names a pool elsewhere: {configured[0]}",
            "use that one, or take the setting away",
        )
    pool = open_pool(settings)
    status = pool.keep()
    pool.close()
    if options.json:
        print_json({"running": True, **status})
    else:
        _print_status(status)
    return 0


def _print_status(status: dict[str, object]) -> None:
    nodes = status["nodes"]
    assert isinstance(nodes, list)
    kind = "software GPU" if nodes and nodes[0]["software"] else "this machine's GPUs"
    log = status["log"] or "N/A (no state folder can be written)"
    idle_s = status["idle_s"]
    after = (
        "" if idle_s is None else f"{format_duration(float(str(idle_s)))} after its last session"
    )
    rows = {
        "pool": f"release {status['release']}, pid {status['pid']}, since {status['started']}",
        "devices": f"{kind}, driver {status['driver']}",
        "data plane": ", ".join(str(node["address"]) for node in nodes),
        "sessions": f"{status['sessions']}, {status['waiting']} requests waiting",
        "workers": f"{status['warm_workers']} warm",
        "ends": after or "when it is stopped: outboard pool stop",
        "log": str(log),
    }
    if status.get("worker_failure"):
        rows["problem"] = str(status["worker_failure"])
    for name, value in rows.items():
        print(f"{name + ':':12}{value}")
