"""Becoming a server's process, with the libraries that servers need and clients do not.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import NoReturn

from outboard.errors import ConfigurationError
from outboard.native import SYSTEM_PACKAGE, SYSTEM_ROOT

# What the package `outboard-server` brings, for the distribution's Python.
SERVER_LIBRARIES = f"{SYSTEM_ROOT}/server"
_SAMPLE = "cryptography"


def become(module: str, arguments: list[str]) -> NoReturn:
    """Execute `python -m MODULE`: a service manager sees one process, its own child.

    Raises `ConfigurationError` where the libraries are not installed.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = [os.path.dirname(package), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    if package == SYSTEM_PACKAGE and os.path.isdir(SERVER_LIBRARIES):
        path.append(SERVER_LIBRARIES)
    elif importlib.util.find_spec(_SAMPLE) is None:
        raise ConfigurationError(
            "the libraries of controller and agent are not installed",
            "apt install ./outboard-server_VERSION_amd64.deb; in a checkout: make build",
        )
    words = [sys.executable, "-P", "-s", "-m", module, *arguments]
    sys.stdout.flush()
    os.execve(sys.executable, words, {**os.environ, "PYTHONPATH": os.pathsep.join(path)})
