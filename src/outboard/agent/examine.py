"""Says in one line of JSON which driver an agent would serve here, and what it has: for the doctor.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile

from outboard.agent.driver import candidate_drivers
from outboard.agent.inventory import find_devices
from outboard.agent.isolation import worker_environment
from outboard.agent.sandbox import DEFAULT_USERS, prepare
from outboard.errors import OutboardError
from outboard.native import find_native_files


def main() -> int:
    """Print it; a failure has `error` and `hint`."""
    parser = argparse.ArgumentParser(prog="python -m outboard.agent.examine", description=__doc__)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--isolation", default="auto")
    parser.add_argument("--worker-users", default=DEFAULT_USERS)
    given = parser.parse_args()
    try:
        native = find_native_files()
        native.require_worker()
        drivers = candidate_drivers(given.driver, native)
        found, passed_over = find_devices(native.worker, drivers, worker_environment(None), 0)
        with tempfile.TemporaryDirectory() as place:
            how = (given.isolation, given.worker_users)
            sandbox = prepare(*how, native.worker, found.driver.path, place)
    except OutboardError as error:
        json.dump({"error": error.message, "hint": error.hint}, sys.stdout)
        return error.exit_code
    told = {
        "driver": found.driver.path,
        "driver_version": found.driver_version,
        "software": found.software,
        "devices": [device.name for device in found.devices],
        "passed_over": passed_over,
        "isolation_lacks": sandbox.lacks,
    }
    json.dump(told, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
