"""`outboard join`: make this machine a GPU server, or a client, of a pool.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import socket
import sys

from outboard.cli.parser import Parser
from outboard.client.enrolment import become_client, enrol, join_as_image, prepare_image
from outboard.errors import ConfigurationError, UsageError
from outboard.model.identity import Identity, write_identity
from outboard.model.token import parse_token
from outboard.service.manager import start_installed
from outboard.settings import SYSTEM_CONFIGURATION_FILE, load_settings

AGENT_STATE = "/var/lib/outboard/agent"

_EXAMPLES = """\
  sudo outboard join ob_... https://gpus.example.org:7860
  sudo outboard join - https://gpus.example.org:7860 < token.txt
  sudo outboard join ob_... https://gpus.example.org:7860 --image
"""


def join_command(words: list[str]) -> int:
    """Exchange a join token for what this machine is to have."""
    parser = Parser(
        "join",
        "Make this machine part of a pool, as the token says: a GPU server, or a client machine.",
        _EXAMPLES,
    )
    parser.add_argument("token", nargs="?", help="a join token, or - to read it from stdin")
    parser.add_argument("url", nargs="?", help="the controller: https://HOST:PORT")
    parser.add_argument("--name", default=socket.gethostname(), help="this machine's name there")
    parser.add_argument("--state", help=f"GPU server: folder of its identity ({AGENT_STATE})")
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--image", action="store_true", help="not now: each machine made from this one, by itself"
    )
    when.add_argument(
        "--at-boot", action="store_true", help="join if made from an image (done by the unit)"
    )
    options = parser.parse_args(words)
    if options.at_boot:
        return _join_at_boot(options.name)
    if not options.token or not options.url:
        raise UsageError("which pool?", "outboard join TOKEN URL")
    token = parse_token(sys.stdin.readline() if options.token == "-" else options.token)
    if options.image:
        prepare_image(token, options.url)
        print(f"machines that are made from this one join {options.url} by themselves")
        return 0
    answer, pem = enrol(token, options.url, options.name, "the command line")
    if answer["kind"] == "node":
        state = options.state or load_settings().text("agent.state", AGENT_STATE)
        _become_node(state, answer, pem)
        print(f"this is GPU server {answer['name']} of {options.url} now ({state})")
        print("start its agent: systemctl enable --now outboard-agent, or: outboard agent")
    else:
        become_client(options.url, answer, pem)
        print(f"this is client {answer['name']} of {options.url} now ({SYSTEM_CONFIGURATION_FILE})")
    return 0


def _join_at_boot(name: str) -> int:
    """Services that had no token until now have given up: they are started again."""
    joined = join_as_image(name)
    if joined:
        print(f"this machine has joined the pool as client {joined}")
        start_installed()
    return 0


def _become_node(state: str, answer: dict[str, object], pem: str) -> None:
    controllers, keys = answer["controllers"], answer["keys"]
    assert isinstance(controllers, list)
    assert isinstance(keys, list)
    identity = Identity(
        name=str(answer["name"]),
        token=str(answer["token"]),
        node_key=str(answer["node_key"]),
        authority_pem=pem,
        controllers=tuple(str(url) for url in controllers),
        keys=tuple(str(key) for key in keys),
    )
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        write_identity(state, identity)
    except OSError as error:
        raise ConfigurationError(
            f"{state} cannot be written: {error.strerror}",
            "run it as root, or name a folder of your own, also for the agent: --state FOLDER",
        ) from error
