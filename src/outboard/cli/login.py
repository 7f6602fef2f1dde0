"""`outboard login`: use a pool from this account.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import sys

from outboard.cli.parser import Parser
from outboard.client import remote
from outboard.client.enrolment import keep_authority
from outboard.directories import user_configuration_file
from outboard.errors import ConfigurationError, UsageError
from outboard.model.token import parse_token
from outboard.settings_file import write_settings

_EXAMPLES = """\
  outboard login https://gpus.example.org:7860
  outboard login https://gpus.example.org:7860 < token.txt
"""


def login_command(words: list[str]) -> int:
    """Check the token with the controller, then keep it in the user's configuration."""
    parser = Parser(
        "login",
        "Use a pool from this account. The token is asked for, or read from stdin; it is never an\n"
        "argument, since those can be seen by every user of the machine.",
        _EXAMPLES,
    )
    parser.add_argument("url", help="the controller: https://HOST:PORT")
    options = parser.parse_args(words)
    path = user_configuration_file()
    if path is None:
        raise ConfigurationError("there is no home folder to keep the token in", "set HOME")
    token = parse_token(_ask())
    pem = remote.fetch_authority(options.url, token.authority, "the command line")
    connection = remote.connect(options.url, pem, str(token), "the command line")
    try:
        answer = connection.call("GET", "/v1/whoami")
    finally:
        connection.close()
    authority = os.path.join(os.path.dirname(path), "authority.pem")
    keep_authority(authority, pem)
    write_settings(path, {"pool": options.url, "token": str(token), "authority": authority})
    print(f"{options.url} is this account's pool now, as {answer.get('name', 'N/A')} ({path})")
    return 0


def _ask() -> str:
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Token: ")
    text = sys.stdin.readline()
    if not text.strip():
        raise UsageError("stdin holds no token", "outboard login URL < FILE, or from a terminal")
    return text
