"""On a real GPU: what frameworks compute natively and through Outboard, side by side.

SPDX-License-Identifier: Apache-2.0

Run on a machine with an NVIDIA GPU, PyTorch, CuPy, JAX and Numba after `make build`:
`python3 tests/gpu/compare.py [FILE…] [--jobs 3] [--logs FOLDER]`, FILE being a name in
`tests/gpu/frameworks/` without `.py`; with `--gpus 2` those of several devices are among them.
Each file runs natively twice and once through Outboard. Where both native runs agree bit for bit,
Outboard's result has to be the same bits; else it has to be close to the first. Prints a row a
case; exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = Path(__file__).resolve().parent / "frameworks"
KINDS = ("native", "again", "outboard")
# Their pre-allocation takes most of the GPU, so they cannot run beside the others.
ALONE = {"jax_cases", "jax_devices"}
# Takes minutes and needs a package of its own: only where it is named.
BY_NAME = {"torch_operators"}
# So many equal cases are a number, not rows.
MOST_ROWS = 60
# Needs several devices.
SEVERAL = {"jax_devices", "torch_devices"}
# What a second native run may differ by (atomics, autotuned algorithms), relative to the largest.
TOLERANCE = 2e-2


def environments() -> dict[str, dict[str, str]]:
    """The environment of a native program and that of one inside this session."""
    remote = dict(os.environ)
    folders = remote["LD_LIBRARY_PATH"].split(":")
    native = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOARD_")}
    native["LD_LIBRARY_PATH"] = ":".join(folders[1:])
    native.pop("TRITON_LIBCUDA_PATH", None)
    return {"native": native, "again": native, "outboard": remote}


def run_logged(
    command: list[str], environment: dict[str, str], log_file: Path, timeout_s: int
) -> None:
    """Runs a program, at most for so long; what it prints and how it ended is in the log."""
    with log_file.open("w") as log:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=timeout_s,
                check=False,
            )
            print(f"exit code {done.returncode}", file=log)
        except subprocess.TimeoutExpired:
            print(f"ended after {timeout_s} s", file=log)


def run(name: str, kind: str, environment: dict[str, str], folder: Path, timeout_s: int) -> float:
    """Wall seconds of all cases of a file; what they print goes to `folder/KIND.log`."""
    begin = time.monotonic()
    # Each run compiles what it needs itself: a kernel from another's cache proves nothing.
    caches = {
        variable: str(folder / f"{kind}-cache" / variable)
        for variable in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUPY_CACHE_DIR")
    }
    command = [sys.executable, "-u", str(FRAMEWORKS / f"{name}.py"), str(folder / kind)]
    run_logged(command, environment | caches, folder / f"{kind}.log", timeout_s)
    return time.monotonic() - begin


def distance(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """The largest difference, relative to the largest value; infinite if not comparable."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.tobytes() == b.tobytes():
        return 0.0
    if a.dtype.kind not in "fc":
        return float("inf")
    scale = max(float(np.abs(a).max(initial=0.0)), 1e-30)
    worst = float(np.abs(a - b).max(initial=0.0)) / scale
    return worst if np.isfinite(worst) else float("inf")


def verdict(folder: Path, case: str) -> tuple[bool, str]:
    files = {kind: folder / kind / f"{case}.npz" for kind in KINDS}
    if not files["native"].exists():
        return True, "not run natively either: " + reason(folder, "native", case)
    if not files["outboard"].exists():
        return False, "FAILED " + reason(folder, "outboard", case)
    native, remote = np.load(files["native"]), np.load(files["outboard"])
    again = np.load(files["again"]) if files["again"].exists() else native
    notes, right = [], True
    for key in native.files:
        own = distance(native[key], again[key])
        off = distance(native[key], remote[key])
        if off and (not own or off > max(TOLERANCE, 4 * own)):
            right = False
            notes.append(f"{key}: off by {off:.3g}, native by {own:.3g}")
        elif own:
            notes.append(f"{key}: not deterministic ({own:.2g}), off by {off:.2g}")
    return right, ("equal " if right else "DIFFERENT ") + "; ".join(notes)


def reason(folder: Path, kind: str, case: str) -> str:
    file = folder / kind / f"{case}.txt"
    if file.exists():
        lines = [line for line in file.read_text().splitlines() if line.strip()]
        errors = [line for line in lines if not line.startswith(" ")] or ["no text"]
        return errors[-1 if len(errors[-1]) > 30 else 0][:300]
    return "no result: " + (folder / f"{kind}.log").read_text()[-200:].strip().replace("\n", " | ")


def case_names(folder: Path) -> list[str]:
    names: dict[str, None] = {}
    for kind in KINDS:
        for file in sorted((folder / kind).glob("[!.]*.*"), key=lambda f: f.stat().st_mtime):
            names.setdefault(file.stem)
    return list(names)


def messages(folder: Path) -> list[str]:
    lines = (folder / "outboard.log").read_text(errors="replace").splitlines()
    return sorted({line for line in lines if line.startswith("outboard")})


def main() -> int:
    parser = argparse.ArgumentParser(description="frameworks natively and through Outboard")
    parser.add_argument("files", nargs="*", metavar="FILE", help="default: all")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of the session")
    parser.add_argument("--jobs", type=int, default=3, help="runs at a time")
    parser.add_argument("--timeout", type=int, default=240, help="seconds for a file's run")
    parser.add_argument("--logs", type=Path, help="folder for logs and results")
    options = parser.parse_args()
    if "OUTBOARD_SESSION" not in os.environ:  # all remote programs join one session
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = ":".join(filter(None, paths))
        module = [sys.executable, "-m", "outboard", "run", "-q", "-n", str(options.gpus), "--"]
        return subprocess.call([*module, sys.executable, __file__, *sys.argv[1:]])
    files = options.files or sorted(
        f.stem
        for f in FRAMEWORKS.glob("*.py")
        if f.stem not in {"cases", *BY_NAME} and (options.gpus > 1 or f.stem not in SEVERAL)
    )
    logs = options.logs or Path(tempfile.mkdtemp(prefix="outboard-compare-"))
    kinds = environments()
    together = [n for n in files if n not in ALONE]
    seconds: dict[tuple[str, str], float] = {}
    for names, jobs in ((together, options.jobs), ([n for n in files if n in ALONE], 1)):
        with ThreadPoolExecutor(jobs) as pool:
            started: dict[tuple[str, str], Future[float]] = {}
            for name in names:
                for kind in ("outboard", "native", "again"):
                    folder = logs / name
                    folder.mkdir(parents=True, exist_ok=True)
                    work = (name, kind, kinds[kind], folder, options.timeout)
                    started[name, kind] = pool.submit(run, *work)
            seconds |= {key: future.result() for key, future in started.items()}
    wrong = 0
    for name in files:
        times = ", ".join(f"{kind} {seconds[name, kind]:.0f} s" for kind in KINDS)
        print(f"== {name} ({times})")
        if not case_names(logs / name):
            wrong += 1
            print("   no case ran:", reason(logs / name, "outboard", ""))
        verdicts = {case: verdict(logs / name, case) for case in case_names(logs / name)}
        plain = [case for case, (_, text) in verdicts.items() if text == "equal "]
        if len(verdicts) > MOST_ROWS:
            print(f"   {len(plain)} of {len(verdicts)} cases equal bit for bit")
        for case, (right, text) in verdicts.items():
            wrong += not right
            if len(verdicts) <= MOST_ROWS or case not in plain:
                print(f"   {case:24} {text}")
        for line in messages(logs / name):
            print(f"   said: {line}")
    print(f"{wrong} wrong; logs in {logs}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
