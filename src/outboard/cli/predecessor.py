"""The predecessor's names for what is called otherwise here: hidden, for scripts that have them.

SPDX-License-Identifier: Apache-2.0

`smi` and `version` are the same, and `run` takes the same -n, -p, -m, -l. Its session files were
named by hand; ours have a folder, so `release_gpus -f FILE` takes the session's name out of FILE's.
"""

from __future__ import annotations

import os

from outboard.cli.parser import Parser
from outboard.errors import UsageError


def request_gpus_command(words: list[str]) -> int:
    """`request_gpus -n 1 -m 4000`: `outboard request`."""
    from outboard.cli.session import request_command

    return request_command(words)


def client_command(words: list[str]) -> int:
    """`client -- app`, or without the dashes: `outboard exec`, in the newest session."""
    from outboard.cli.session import exec_command

    if words[:1] in (["-h"], ["--help"]):
        return exec_command(words)
    return exec_command(["--", *(words[1:] if words[:1] == ["--"] else words)])


def release_gpus_command(words: list[str]) -> int:
    """`release_gpus [-f FILE]`: `outboard release`."""
    from outboard.cli.session import release_command

    parser = Parser("release_gpus", "As outboard release.", "  outboard release\n")
    parser.add_argument("-f", "--file", help="the session's file, as `outboard request` named it")
    options = parser.parse_args(words)
    if options.file is None:
        return release_command([])
    name, kind = os.path.splitext(os.path.basename(options.file))
    if kind != ".json":
        raise UsageError(f"-f {options.file}: not a session's file", "outboard release SESSION")
    return release_command([name])


def list_gpus_command(words: list[str]) -> int:
    """`list_gpus`: `outboard gpus`."""
    from outboard.cli.gpus import gpus_command

    return gpus_command(words)


def health_command(words: list[str]) -> int:
    """`health`, `localhealth`: `outboard doctor`."""
    from outboard.cli.doctor import doctor_command

    return doctor_command(words)
