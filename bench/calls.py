"""What a driver call costs: the null driver natively and through Outboard, in turn, in one run.

SPDX-License-Identifier: Apache-2.0

`python -m bench.calls [--pairs 9] [--driver build/lib/nulldriver/libcuda.so.1] [--json FILE]`
prints one row a figure: native, remote, and for each figure with a bar whether it is met. Times in
nanoseconds; rates as a share of what a plain socket pair moved in the same run. Start it inside a
session (`outboard run -n 1 -- python -m bench.calls`), or let it start one for each run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.statistics import Estimate, estimate

ROOT = Path(__file__).resolve().parent.parent
THROUGHPUT_CORES = 8
INTERVAL_SLACK = 0.02  # a bar counts as met within the interval, at most this share beside it


def build_folder() -> Path:
    return Path(os.environ.get("OUTBOARD_NATIVE_DIR", ROOT / "build"))


def run_native(driver: Path, launches: int) -> dict[str, float]:
    """One run of the bench program on `driver` without Outboard."""
    environment = dict(os.environ)
    environment.pop("OUTBOARD_SESSION", None)
    environment["LD_LIBRARY_PATH"] = str(driver.parent)
    return run([str(build_folder() / "bench" / "bench_calls"), str(launches)], environment)


def pool_of_its_own(driver: Path) -> dict[str, str]:
    """Variables for a pool on `driver` that nothing else uses, whatever pool this machine runs."""
    folder = Path(tempfile.gettempdir()) / f"outboard-bench-{driver.parent.name}-{os.getpid()}"
    return {
        "OUTBOARD_DRIVER": str(driver),
        "OUTBOARD_RUNTIME_DIR": str(folder),
        "OUTBOARD_POOL_IDLE": "5s",
    }


def run_remote(driver: Path, launches: int) -> dict[str, float]:
    """One run of the bench program under `outboard run`, the worker on `driver`."""
    outboard = Path(sys.executable).with_name("outboard")
    environment = dict(os.environ, **pool_of_its_own(driver))
    program = str(build_folder() / "bench" / "bench_calls")
    return run([str(outboard), "run", "-q", "-n", "1", "--", program, str(launches)], environment)


def run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)} ended with exit code {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def derived(figures: dict[str, float]) -> dict[str, float]:
    """The figures that have bars: differences to the round trip and shares of the socket's rate."""
    trip = min(figures["round_trip_64"], figures["round_trip_64_again"])
    rows = dict(figures)
    for name in ("sync_mem_info", "sync_read_4_bytes", "sync_launch_and_wait"):
        rows[f"{name}_beyond_trip"] = figures[name] - trip
    up = max(figures["socket_to_peer"], figures["socket_to_peer_again"])
    down = max(figures["socket_from_peer"], figures["socket_from_peer_again"])
    rows["h2d_pageable_of_socket"] = figures["h2d_pageable"] / up
    # The null driver calls a copy done before its bytes have come, so an asynchronous one has no
    # rate there: `h2d_pinned` means something on a driver that waits for them.
    rows["d2h_pageable_of_socket"] = figures["d2h_pageable"] / down
    return rows


BARS: dict[str, tuple[str, float]] = {
    "local_ctx_get_device": ("<=", 20),
    "local_ctx_get_current": ("<=", 20),
    "local_primary_state": ("<=", 20),
    "local_is_capturing": ("<=", 20),
    "local_attribute": ("<=", 60),
    "async_launch": ("<=", 500),
    "async_event_record": ("<=", 500),
    "async_memset": ("<=", 500),
    "async_copy_on_device": ("<=", 500),
    "sync_mem_info_beyond_trip": ("<=", 5000),
    "sync_read_4_bytes_beyond_trip": ("<=", 5000),
    "sync_launch_and_wait_beyond_trip": ("<=", 5000),
    "launches_per_s": (">=", 2e6),
    "h2d_pageable_of_socket": (">=", 0.9),
    "d2h_pageable_of_socket": (">=", 0.9),
}


def verdict(name: str, value: Estimate) -> str:
    """`met`, `missed`, or why the bar does not apply here."""
    if name not in BARS:
        return ""
    if name == "launches_per_s" and (os.cpu_count() or 1) < THROUGHPUT_CORES:
        return f"not judged: needs {THROUGHPUT_CORES} cores, here {os.cpu_count()}"
    sign, bar = BARS[name]
    if sign == "<=":
        met = value.median <= bar or (
            value.low <= bar and value.median <= bar * (1 + INTERVAL_SLACK)
        )
    else:
        met = value.median >= bar or (
            value.high >= bar and value.median >= bar * (1 - INTERVAL_SLACK)
        )
    return f"{'met' if met else 'MISSED'} ({sign} {bar:g})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--launches", type=int, default=200_000)
    parser.add_argument("--driver", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None, help="write all figures to this file")
    options = parser.parse_args(arguments)
    driver = options.driver or build_folder() / "lib" / "nulldriver" / "libcuda.so.1"
    native: list[dict[str, float]] = []
    remote: list[dict[str, float]] = []
    for pair in range(options.pairs):
        print(f"\rpair {pair + 1} of {options.pairs}", end="", file=sys.stderr, flush=True)
        native.append(derived(run_native(driver, options.launches)))
        remote.append(derived(run_remote(driver, options.launches)))
    print("\r", end="", file=sys.stderr)
    rows = []
    for name in remote[0]:
        here = estimate([figures[name] for figures in native if name in figures])
        there = estimate([figures[name] for figures in remote])
        rows.append((name, here, there, verdict(name, there)))
    print(f"{'figure (ns, bytes/s, or a ratio)':38} {'native':>12} {'outboard':>32}  bar")
    for name, here, there, judged in rows:
        print(f"{name:38} {here.median:12.4g} {there!s:>32}  {judged}")
    if options.json is not None:
        content = {
            "driver": str(driver),
            "cores": os.cpu_count(),
            "pairs": options.pairs,
            "native": native,
            "outboard": remote,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
