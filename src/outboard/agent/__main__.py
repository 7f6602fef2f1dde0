"""`python -m outboard.agent`: the agent's process, which `outboard agent` becomes.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import logging
import sys

from outboard.agent.sandbox import DEFAULT_USERS
from outboard.agent.service import AgentOptions, run_agent
from outboard.errors import OutboardError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m outboard.agent", description=__doc__)
    for name in ("state", "runtime", "listen", "driver"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--address", default="")
    parser.add_argument("--warm-workers", type=int, required=True)
    parser.add_argument("--isolation", default="auto")
    parser.add_argument("--worker-users", default=DEFAULT_USERS)
    parser.add_argument("--plaintext-data-plane", action="store_true")
    given = parser.parse_args()
    # To stderr, where systemd adds time and unit.
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    options = AgentOptions(
        state=given.state,
        runtime=given.runtime,
        listen=given.listen,
        address=given.address,
        driver=given.driver,
        warm_workers=given.warm_workers,
        isolation=given.isolation,
        worker_users=given.worker_users,
        plaintext=given.plaintext_data_plane,
    )
    try:
        return run_agent(options)
    except OutboardError as error:
        sys.stderr.write(f"outboard: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"outboard: {error.hint}\n")
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
