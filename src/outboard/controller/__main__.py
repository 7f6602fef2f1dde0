"""`python -m outboard.controller`: makes a controller's files, or serves; `outboard controller`.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from outboard.client.enrolment import enrol
from outboard.controller.installation import (
    ControllerConfiguration,
    Heritage,
    announce,
    create_installation,
    first_token,
    own_names,
    read_installation,
    require_new,
)
from outboard.controller.server import serve
from outboard.errors import ConfigurationError, OutboardError
from outboard.ledger.backup import back_up, put_back
from outboard.ledger.database import Database
from outboard.model.token import parse_token
from outboard.pki.authority import Credential

_PORT = 7860


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m outboard.controller", description=__doc__)
    parser.add_argument("action", choices=("init", "join", "serve", "backup", "restore"))
    parser.add_argument("what", nargs="?", default="", help="a file; join: the pool's URL")
    parser.add_argument("--state", required=True)
    parser.add_argument("--name", action="append", default=[])
    parser.add_argument("--listen", default=f"0.0.0.0:{_PORT}")
    parser.add_argument("--database", default="")
    parser.add_argument("--admin", default="admin")
    given = parser.parse_args()
    os.umask(0o077)
    # To stderr, where systemd adds time and unit.
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        if given.action == "init":
            return _init(given)
        if given.action == "join":
            return _join(given)
        if given.action == "serve":
            return serve(given.state)
        return _copy(given)
    except OutboardError as error:
        sys.stderr.write(f"outboard: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"outboard: {error.hint}\n")
        return error.exit_code


def _init(given: argparse.Namespace) -> int:
    """Make the controller; its first token goes to stdout, once."""
    state = os.path.abspath(given.state)
    configuration = _configuration(given, f"sqlite:///{state}/ledger.sqlite")
    installation = create_installation(state, configuration)
    database = Database(configuration.database)
    try:
        announce(database, installation)
        token = first_token(database, given.admin, installation.authority.mark)
    finally:
        database.close()
    sys.stderr.write(
        f"{_made(state, configuration)}"
        f"outboard: then sign in as {given.admin} with this token, which is shown only now:"
        f" outboard login {configuration.addresses[0]}\n"
    )
    sys.stdout.write(f"{token}\n")
    return 0


def _join(given: argparse.Namespace) -> int:
    """Become one more controller of a pool that is on PostgreSQL; the token comes by stdin."""
    token = parse_token(sys.stdin.readline())
    state = os.path.abspath(given.state)
    require_new(state)  # before the token is used up
    name = _configuration(given, "").name
    answer, pem = enrol(token, given.what, name, "the command line")
    if answer["kind"] != "controller":
        raise ConfigurationError(
            f"that token made this machine a {answer['kind']} of the pool, not a controller",
            "make one for a controller: outboard tokens create --join controller",
        )
    told = {name: str(answer[name]) for name in ("authority_key", "pool_key", "database")}
    configuration = _configuration(given, told["database"])
    database = Database(configuration.database)  # if it cannot be reached, nothing is made
    try:
        heritage = Heritage(
            Credential(pem.encode(), told["authority_key"].encode()),
            bytes.fromhex(told["pool_key"]),
        )
        announce(database, create_installation(state, configuration, heritage))
    finally:
        database.close()
    sys.stderr.write(
        f"{_made(state, configuration)}"
        "outboard: agents learn of it by themselves; clients name it as well: outboard login"
        f" {given.what},{configuration.addresses[0]}\n"
    )
    return 0


def _configuration(given: argparse.Namespace, database: str) -> ControllerConfiguration:
    names = tuple(dict.fromkeys([*given.name, *own_names()]))
    port = given.listen.rpartition(":")[2]
    first = f"[{names[0]}]" if ":" in names[0] else names[0]
    return ControllerConfiguration(
        name=names[0],
        names=names,
        listen=given.listen,
        addresses=(f"https://{first}:{port}",),
        database=given.database or database,
    )


def _made(state: str, configuration: ControllerConfiguration) -> str:
    return (
        f"outboard: {state} is the controller {configuration.addresses[0]} now, reached as"
        f" {', '.join(configuration.names)}\n"
        "outboard: start it: systemctl enable --now outboard-controller, or: outboard controller\n"
    )


def _copy(given: argparse.Namespace) -> int:
    """Back the ledger up, or put a backup back."""
    url = read_installation(given.state).configuration.database
    if given.action == "backup":
        back_up(url, given.what)
        sys.stderr.write(
            f"outboard: the ledger is in {given.what}; keep {given.state} with it: what is sealed"
            " in the ledger opens with the keys there\n"
        )
        return 0
    put_back(url, given.what)
    sys.stderr.write(
        "outboard: the ledger is restored; start the controller: servers take new programs as their"
        " agents report\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
