"""`outboard tokens`: make, list and revoke what people and machines sign in with.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys

from outboard.cli.calls import call, path_of, shown
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError
from outboard.settings import load_settings
from outboard.units import parse_duration_s

# What a machine that joins may do afterwards.
_JOIN_SCOPES = {
    "node": ["enrol", "agent"],
    "host": ["enrol", "use", "service"],
    "controller": ["enrol", "controller"],
}
_JOIN_LIFETIME_S = {"node": 86_400, "host": 86_400, "controller": 3600}

_EXAMPLES = """\
  outboard tokens create --user ada                 a person's
  outboard tokens create --user ada --scope admin   an administrator's
  outboard tokens create --join node                for one more GPU server, within a day
  outboard tokens create --join host --uses 100     for an image that is cloned
  outboard tokens create --join controller          for one more controller, within an hour
  outboard tokens list
  outboard tokens revoke 0f3a9c21d4e5b687
"""


def tokens_command(words: list[str]) -> int:
    """Make, list or revoke."""
    parser = Parser("tokens", "Make, list and revoke tokens.", _EXAMPLES)
    parser.add_argument("action", nargs="?", choices=("create", "list", "revoke"), default="list")
    parser.add_argument("id", nargs="?", help="revoke: which")
    parser.add_argument("--user", metavar="NAME", help="create: a person's token")
    parser.add_argument("--join", choices=tuple(_JOIN_SCOPES), help="create: a machine's, once")
    parser.add_argument(
        "--scope", action="append", choices=("use", "read", "admin"), help="create: what it allows"
    )
    parser.add_argument(
        "--lifetime", metavar="TIME", help="create: 90d; to join: 1d, a controller 1h"
    )
    parser.add_argument("--uses", metavar="N", type=int, help="create --join: of how many (1)")
    parser.add_argument("--note", default="", help="create: what it is for")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if options.action == "create":
        answer = call("POST", "/v1/tokens", _body(options.user, options.join, vars(options)))
        if options.json:
            print_json(answer)
        else:
            print(answer["token"])
            _say_next(options.join)
        return 0
    if options.action == "revoke":
        if not options.id:
            raise UsageError("which token?", "outboard tokens revoke ID; see: outboard tokens list")
        answer = call("DELETE", path_of("tokens", options.id))
        if options.json:
            print_json(answer)
        else:
            print(f"{options.id} is revoked")
        return 0
    answer = call("GET", "/v1/tokens")
    if options.json:
        print_json(answer)
        return 0
    fields = ("id", "subject_kind", "subject", "scopes", "expires_us", "revoked_us", "note")
    print_table(
        ["ID", "KIND", "WHOSE", "SCOPES", "EXPIRES", "REVOKED", "NOTE"],
        [[_field(token[field], field) for field in fields] for token in answer["tokens"]],
    )
    return 0


def _say_next(join: str | None) -> None:
    """On stderr: stdout is the token alone, which is never shown again."""
    url = load_settings().text("pool", "URL")
    what = {
        None: f"its owner signs in with it: outboard login {url}",
        "node": f"on the GPU server, as root: outboard join - {url}",
        "host": f"on the client machine, as root: outboard join - {url}",
        "controller": f"whoever has it gets the pool's keys; there: outboard controller join {url}",
    }[join]
    sys.stderr.write(f"outboard: it is shown only now; {what}\n")


def _body(user: str | None, join: str | None, options: dict[str, object]) -> dict[str, object]:
    if (user is None) == (join is None):
        raise UsageError(
            "whose token?", "outboard tokens create --user NAME, or --join node, host or controller"
        )
    body: dict[str, object] = {"note": options["note"]}
    lifetime = options["lifetime"]
    if lifetime is not None:
        body["lifetime_s"] = int(parse_duration_s(str(lifetime)))
    if user is not None:
        return {
            **body,
            "subject_kind": "user",
            "subject": user,
            "scopes": options["scope"] or ["use"],
        }
    assert join is not None
    body.setdefault("lifetime_s", _JOIN_LIFETIME_S[join])
    scopes, uses = _JOIN_SCOPES[join], options["uses"] or 1
    return {**body, "subject_kind": "join", "subject": join, "scopes": scopes, "uses": uses}


def _field(value: object, name: str) -> str:
    if not name.endswith("_us"):
        return shown(value)
    if value is None:
        return "-"
    import datetime as dt

    return f"{dt.datetime.fromtimestamp(int(str(value)) / 1_000_000, dt.UTC):%Y-%m-%d %H:%M:%SZ}"
