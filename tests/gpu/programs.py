"""On a real GPU: the suite's CUDA programs natively and through Outboard, equal result buffers.

SPDX-License-Identifier: Apache-2.0

Run on a machine with an NVIDIA GPU after `make build`:
`python3 tests/gpu/programs.py [NAME…] [--jobs 6] [--gpus 2] [--nvrtc FOLDER]`. A row for every
program whose exit code or result buffers differ from native's; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.gpu.compare import environments
from tests.programs.cases import BEYOND_THE_DRIVER, CASES, TWO_DEVICE_CASES

# Takes most of the device, so it cannot run beside others.
ALONE = "memoryLimit"
BUILD = Path(os.environ.get("OUTBOARD_NATIVE_DIR", ROOT / "build"))
TIMEOUT_S = 60


@dataclass(frozen=True)
class Ending:
    """How one run ended: its exit code, the bytes of its result buffers, its last words."""

    code: int
    results: bytes
    said: str

    def __str__(self) -> str:
        return f"exit {self.code}, {len(self.results)} bytes; {self.said}"


def run(program: Path, arguments: list[str], environment: dict[str, str]) -> Ending:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [str(program), *arguments, "--out", str(out)]
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Ending(-1, b"", f"ended after {TIMEOUT_S} s")
        said = " | ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-6:])
        return Ending(done.returncode, out.read_bytes() if out.exists() else b"", said)


def main() -> int:
    parser = argparse.ArgumentParser(description="the suite's programs on a real GPU")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these programs")
    parser.add_argument("--jobs", type=int, default=6, help="programs at a time")
    parser.add_argument("--gpus", type=int, default=1, help="2: those of two devices, too")
    parser.add_argument("--nvrtc", type=Path, help="the folder of libnvrtc.so.13")
    options = parser.parse_args()
    if "OUTBOARD_SESSION" not in os.environ:  # all remote programs join one session
        os.environ["PYTHONPATH"] = str(ROOT / "src")
        module = [sys.executable, "-m", "outboard", "run", "-q", "-n", str(options.gpus), "--"]
        return subprocess.call([*module, sys.executable, __file__, *sys.argv[1:]])
    kinds = environments()
    known = CASES + TWO_DEVICE_CASES if options.gpus > 1 else CASES
    cases = [case for case in known if not options.names or case[1] in options.names]

    def arguments_of(name: str) -> list[str]:
        if name != "nvrtcModule":
            return []
        assert options.nvrtc is not None, "--nvrtc FOLDER is missing"
        files = {"nvrtc": "libnvrtc.so.13", "builtins": "libnvrtc-builtins.so.13.0"}
        return [w for k, f in files.items() for w in (f"--{k}", str(options.nvrtc / f))]

    def compare(case: tuple[str, str]) -> tuple[str, Ending, Ending]:
        kind, name = case
        if name == "nvrtcModule" and options.nvrtc is None:
            skipped = Ending(0, b"", "not run: --nvrtc FOLDER is missing")
            return f"{kind}/{name}", skipped, skipped
        program = BUILD / "programs" / kind / name
        ends = [run(program, arguments_of(name), kinds[where]) for where in ("native", "outboard")]
        return f"{kind}/{name}", ends[0], ends[1]

    with ThreadPoolExecutor(options.jobs) as pool:
        compared = list(pool.map(compare, [case for case in cases if case[1] != ALONE]))
    compared += [compare(case) for case in cases if case[1] == ALONE]
    wrong = failed = 0
    for name, native, remote in compared:
        if native.code and not remote.code and name.split("/")[1] in BEYOND_THE_DRIVER:
            print(f"fails natively alone, as it may: {name}")
        elif (native.code, native.results) != (remote.code, remote.results):
            wrong += 1
            print(f"DIFFERENT {name}\n   native:   {native}\n   outboard: {remote}")
        elif native.code:
            failed += 1
            print(f"fails natively, too: {name}\n   native:   {native}\n   outboard: {remote}")
    print(f"{len(cases)} programs, {wrong} different, {failed} that fail natively, too")
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
