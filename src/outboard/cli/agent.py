"""`outboard agent`: serve this machine's GPUs to the pool that it joined.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.join import AGENT_STATE
from outboard.cli.parser import Parser
from outboard.cli.server import become
from outboard.errors import UsageError
from outboard.settings import load_settings

_RUNTIME = "/run/outboard/agent"
_LISTEN = "0.0.0.0:7861"
_WORKER_USERS = "1879048192-1879113727"

_EXAMPLES = """\
  outboard agent
  outboard agent --listen 10.0.0.5:7861 --address gpu1.example.org:7861
"""


def agent_command(words: list[str]) -> int:
    """Become the agent's process: a service manager sees one process, its own child."""
    parser = Parser("agent", "Serve this machine's GPUs to the pool that it joined.", _EXAMPLES)
    parser.add_argument("--listen", metavar="HOST:PORT", help=f"the data plane's port ({_LISTEN})")
    parser.add_argument("--address", metavar="HOST:PORT", help="how clients reach it")
    parser.add_argument("--driver", help="auto, software, or a libcuda.so.1's path (auto)")
    parser.add_argument("--warm-workers", metavar="N", help="workers that wait, ready (1)")
    parser.add_argument("--state", metavar="FOLDER", help=f"its identity ({AGENT_STATE})")
    parser.add_argument("--runtime", metavar="FOLDER", help=f"its running state ({_RUNTIME})")
    parser.add_argument(
        "--isolation", choices=("auto", "off"), help="of workers: what can be, or nothing (auto)"
    )
    parser.add_argument(
        "--worker-users", metavar="FIRST-LAST", help=f"user ids for workers ({_WORKER_USERS})"
    )
    parser.add_argument(
        "--plaintext-data-plane",
        action="store_true",
        help="let programs and their data cross the network unencrypted",
    )
    options = parser.parse_args(words)
    settings = load_settings()
    defaults = {
        "state": AGENT_STATE,
        "runtime": _RUNTIME,
        "listen": _LISTEN,
        "address": "",
        "driver": "auto",
        "warm_workers": "1",
        "isolation": "auto",
        "worker_users": _WORKER_USERS,
    }
    chosen = {
        name: getattr(options, name) or settings.text(f"agent.{name}", default)
        for name, default in defaults.items()
    }
    if not chosen["warm_workers"].isdecimal() or int(chosen["warm_workers"]) > 64:
        raise UsageError(f"--warm-workers {chosen['warm_workers']}: not a number from 0 to 64")
    arguments: list[str] = []
    for name, value in chosen.items():
        arguments += [f"--{name.replace('_', '-')}", value]
    if options.plaintext_data_plane:
        arguments.append("--plaintext-data-plane")
    become("outboard.agent", arguments)
