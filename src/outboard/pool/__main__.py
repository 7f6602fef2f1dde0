"""`python -m outboard.pool`: the embedded pool's process, started by the launcher.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse

from outboard.pool.daemon import run_daemon


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m outboard.pool", description="The pool of this machine, for one user."
    )
    parser.add_argument("--runtime", required=True, help="folder of the socket and session files")
    parser.add_argument("--ready-fd", type=int, help="descriptor to report the start's outcome on")
    arguments = parser.parse_args()
    return run_daemon(arguments.runtime, arguments.ready_fd)


if __name__ == "__main__":
    raise SystemExit(main())
