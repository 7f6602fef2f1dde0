"""On a real GPU: the spine's programs natively and through Outboard, equal results, times in turn.

SPDX-License-Identifier: Apache-2.0

Run on a machine with an NVIDIA GPU after `make build`:
`python3 tests/gpu/spine.py [--pairs 9] [--json FILE]`. Prints one row a program: result, wall
seconds of both, the median ratio of the pairs with its 95 % interval. Exit code 1 if any result
differs from native's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from bench.statistics import estimate

BUILD = Path(os.environ.get("OUTBOARD_NATIVE_DIR", ROOT / "build"))

CUPY = """
import time, numpy as np, cupy as cp, sys
x = np.random.default_rng(5).random((1024, 1024), dtype=np.float32)
a = cp.asarray(x)
value = float((a * 2 + 1).sum())
times = []
for _ in range(200):
    begin = time.perf_counter(); value = float((a * 2 + 1).sum())
    times.append(time.perf_counter() - begin)
assert abs(value - float((x.astype(np.float64) * 2 + 1).sum())) < 2.0, value
open(sys.argv[1], "wb").write(np.float64(value).tobytes())
print(f"Time= {sorted(times)[100] * 1e3:.4f} msec")
"""

NUMBA = """
import sys, numpy as np
from numba import cuda
@cuda.jit
def add(a, b, c):
    i = cuda.grid(1)
    if i < c.size: c[i] = a[i] + b[i]
@cuda.reduce
def total(a, b): return a + b
rng = np.random.default_rng(7); n = 100_000
a = rng.random(n, dtype=np.float32); b = rng.random(n, dtype=np.float32); c = np.zeros_like(a)
add[(n + 255) // 256, 256](a, b, c)
assert (c == a + b).all()
whole = np.arange(10_000, dtype=np.float64)
assert total(whole) == whole.sum()
open(sys.argv[1], "wb").write(c.tobytes())
"""


@dataclass
class Case:
    name: str
    command: list[str]  # "{out}" becomes the file for the result


@dataclass
class Row:
    name: str
    equal: bool = True
    note: str = ""
    native_s: list[float] = field(default_factory=list)
    remote_s: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)


def cases() -> list[Case]:
    found = []
    for linkage in ("static", "shared"):
        program = BUILD / "programs" / linkage / "matrixMul"
        if program.exists():
            command = [str(program), "--iterations", "300", "--out", "{out}"]
            found.append(Case(f"matrixMul {linkage}", command))
    program = BUILD / "programs" / "driver" / "vectorAddDriver"
    if program.exists():
        found.append(Case("vectorAdd driver API", [str(program), "--out", "{out}"]))
    found.append(Case("Numba", [sys.executable, "-c", NUMBA, "{out}"]))
    found.append(Case("CuPy (a*2+1).sum()", [sys.executable, "-c", CUPY, "{out}"]))
    return found


def once(
    command: list[str], environment: dict[str, str], out: Path
) -> tuple[float, float | None, str]:
    """Wall seconds, the milliseconds the program printed of itself, and a note if it failed."""
    words = [str(out) if word == "{out}" else word for word in command]
    begin = time.monotonic()
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    wall_s = time.monotonic() - begin
    own = None
    for line in done.stdout.splitlines():
        if "Time=" in line:
            own = float(line.split("Time=")[1].split("msec")[0])
    note = "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()[-300:]}"
    return wall_s, own, note


def measure(case: Case, pairs: int, remote_environment: dict[str, str]) -> Row:
    row = Row(case.name)
    native_environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOARD_")}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "native", Path(folder) / "remote"]
        for _ in range(pairs):
            native_s, native_own, native_note = once(case.command, native_environment, files[0])
            remote_s, remote_own, remote_note = once(case.command, remote_environment, files[1])
            row.note = row.note or native_note or remote_note
            if row.note:
                row.equal = False
                break
            row.equal = row.equal and files[0].read_bytes() == files[1].read_bytes()
            row.native_s.append(native_s)
            row.remote_s.append(remote_s)
            if native_own and remote_own:
                row.own.append(remote_own / native_own)
    return row


def print_row(row: Row) -> None:
    if not row.native_s:
        print(f"{row.name:24} FAILED   {row.note}")
        return
    ratio = estimate([r / n for r, n in zip(row.remote_s, row.native_s, strict=True)])
    own = f"own time {estimate(row.own)}" if row.own else ""
    state = "equal" if row.equal else "DIFFERENT"
    native = estimate(row.native_s).median
    print(
        f"{row.name:24} {state:9} native {native:6.3f} s, outboard/native {ratio} {own} {row.note}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="the spine on a real GPU")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "OUTBOARD_SESSION" not in os.environ:  # all remote programs join one session
        module = [sys.executable, "-m", "outboard", "run", "-q", "-n", "1", "--"]
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = ":".join(filter(None, paths))
        return subprocess.call([*module, sys.executable, __file__, *sys.argv[1:]])
    remote = dict(os.environ)
    shim = remote["LD_LIBRARY_PATH"].split(":")[0]
    # The native side of each pair runs here too, so this process must not carry the shim's path.
    os.environ["LD_LIBRARY_PATH"] = remote["LD_LIBRARY_PATH"].removeprefix(shim).lstrip(":")
    os.environ.pop("TRITON_LIBCUDA_PATH", None)
    rows = [measure(case, options.pairs, remote) for case in cases()]
    for row in rows:
        print_row(row)
    if options.json:
        content = {"machine": platform.node(), "rows": [row.__dict__ for row in rows]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
