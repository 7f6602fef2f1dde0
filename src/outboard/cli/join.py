"""`outboard join`: make this machine a GPU server, or a client, of a pool.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import socket
import sys

from outboard import __version__
from outboard.cli.login import keep_authority
from outboard.cli.parser import Parser
from outboard.client import remote
from outboard.errors import ConfigurationError
from outboard.model.identity import Identity, machine_mark, write_identity
from outboard.model.token import Token, parse_token
from outboard.settings import SYSTEM_CONFIGURATION_FILE, load_settings
from outboard.settings_file import write_settings

AGENT_STATE = "/var/lib/outboard/agent"

_EXAMPLES = """\
  sudo outboard join ob_... https://gpus.example.org:7860
  sudo outboard join - https://gpus.example.org:7860 < token.txt
"""


def join_command(words: list[str]) -> int:
    """Exchange a join token for what this machine is to have."""
    parser = Parser(
        "join",
        "Make this machine part of a pool, as the token says: a GPU server, or a client machine.",
        _EXAMPLES,
    )
    parser.add_argument("token", help="a join token, or - to read it from stdin")
    parser.add_argument("url", help="the controller: https://HOST:PORT")
    parser.add_argument("--name", default=socket.gethostname(), help="this machine's name there")
    parser.add_argument("--state", help=f"GPU server: folder of its identity ({AGENT_STATE})")
    options = parser.parse_args(words)
    token = parse_token(sys.stdin.readline() if options.token == "-" else options.token)
    answer, pem = _enrol(token, options.url, options.name)
    if answer["kind"] == "node":
        state = options.state or load_settings().text("agent.state", AGENT_STATE)
        _become_node(state, answer, pem)
        print(f"this is GPU server {answer['name']} of {options.url} now ({state})")
        print("start its agent: systemctl enable --now outboard-agent, or: outboard agent")
    else:
        path = SYSTEM_CONFIGURATION_FILE
        authority = os.path.join(os.path.dirname(path), "authority.pem")
        keep_authority(authority, pem)
        settings = {"pool": options.url, "token": str(answer["token"]), "authority": authority}
        write_settings(path, settings)
        print(f"this is client {answer['name']} of {options.url} now ({path})")
    return 0


def _enrol(token: Token, url: str, name: str) -> tuple[dict[str, object], str]:
    pem = remote.fetch_authority(url, token.authority, "the command line")
    connection = remote.connect(url, pem, "", "the command line")
    body: dict[str, object] = {
        "token": str(token),
        "name": name,
        "machine": machine_mark(),
        "release": __version__,
    }
    try:
        return connection.call("POST", "/v1/enrol", body), pem
    finally:
        connection.close()


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
