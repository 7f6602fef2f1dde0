"""Whole programs natively and through Outboard, in turn, as the ratio of their own timings.

SPDX-License-Identifier: Apache-2.0

`python -m bench.programs [--pairs 9] [--driver DIR] -- PROGRAM [ARGUMENT …]` runs the program on
the driver in DIR (the software GPU's by default) and inside one session, and prints the median of
the pairs' ratios of wall time with its 95 % interval. Programs that print `Time= X msec` (as
matrixMul does) are compared by that figure as well.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from bench.calls import build_folder, pool_of_its_own
from bench.statistics import estimate

OWN_TIME = re.compile(r"Time\s*=\s*([0-9.]+)\s*msec", re.IGNORECASE)


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float | None]:
    """Wall seconds of the process, and the milliseconds that it printed of itself."""
    begin = time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    wall_s = time.monotonic() - begin
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)} ended with exit code {done.returncode}")
    own = OWN_TIME.search(done.stdout)
    return wall_s, float(own.group(1)) if own else None


def session_environment(environment: dict[str, str], driver: Path) -> None:
    """Runs this module again inside a session on `driver`, which its remote programs join."""
    if "OUTBOARD_SESSION" in environment:
        return
    outboard = str(Path(sys.executable).with_name("outboard"))
    command = [outboard, "run", "-q", "-n", "1", "--", sys.executable, "-m", "bench.programs"]
    variables = environment | pool_of_its_own(driver / "libcuda.so.1")
    os.execve(outboard, [*command, *sys.argv[1:]], variables)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--driver", type=Path, default=build_folder() / "lib" / "softgpu")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = [word for word in options.program if word != "--"]
    if not command:
        parser.error(
            "no program given: python -m bench.programs -- build/programs/static/matrixMul"
        )
    remote_environment = dict(os.environ)
    session_environment(remote_environment, options.driver)
    native_environment = dict(os.environ, LD_LIBRARY_PATH=str(options.driver))
    native_environment.pop("OUTBOARD_SESSION", None)
    walls: list[float] = []
    own: list[float] = []
    for pair in range(options.pairs):
        print(f"\rpair {pair + 1} of {options.pairs}", end="", file=sys.stderr, flush=True)
        native_wall, native_own = timed(command, native_environment)
        remote_wall, remote_own = timed(command, remote_environment)
        walls.append(remote_wall / native_wall)
        if native_own and remote_own:
            own.append(remote_own / native_own)
    print("\r", end="", file=sys.stderr)
    print(f"whole process, outboard / native: {estimate(walls)}")
    if own:
        print(f"the program's own time, outboard / native: {estimate(own)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
