"""`make bench`: the costs of calls, then whole programs, each natively and through Outboard.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import subprocess
import sys

from bench import calls


def main() -> int:
    """Runs all benchmarks; a bar that is missed is printed, not an error."""
    print("Driver calls: the null driver natively and through Outboard, TCP loopback, no TLS")
    failed = calls.main([])
    sys.stdout.flush()
    program = calls.build_folder() / "programs" / "static" / "matrixMul"
    print("\nmatrixMul on the software GPU, natively and through Outboard (bar: 1.1)")
    sys.stdout.flush()
    command = [sys.executable, "-m", "bench.programs", "--", str(program), "--iterations", "30"]
    return failed or subprocess.call(command)


if __name__ == "__main__":
    raise SystemExit(main())
