"""On a real GPU: a library's own tests natively and through Outboard, outcome by outcome.

SPDX-License-Identifier: Apache-2.0

`python3 tests/gpu/suites.py [PACKAGE…] [--jobs 8] [--only TEXT]` runs every module of unittest
tests under PACKAGE (`numba.cuda.tests`) in a process of its own, natively and in one session.
A test counts as different if its outcome differs twice. Exit code 1 if one does. Numba's tests need
the package `filecheck`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.gpu.compare import environments, run_logged

Outcomes = dict[str, str]


class Recorder(unittest.TestResult):
    """Writes what has come of each test as soon as it is known: the process may not end well."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out
        self._outcomes: Outcomes = {}

    def _note(self, test: unittest.TestCase, outcome: str) -> None:
        self._outcomes[test.id()] = outcome
        self._out.write_text(json.dumps(self._outcomes), encoding="utf-8")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._note(test, "died")

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._note(test, "skipped")

    def addExpectedFailure(self, test: unittest.TestCase, err: object) -> None:
        self._note(test, "failed as expected")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "passed unexpectedly")

    def addError(self, test: unittest.TestCase, err: object) -> None:
        self._report(test, err)

    def addFailure(self, test: unittest.TestCase, err: object) -> None:
        self._report(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: object) -> None:
        if err is not None:
            self._report(test, err)

    def _report(self, test: unittest.TestCase, err: object) -> None:
        print(f"--- {test.id()}\n{self._exc_info_to_string(err, test)}", flush=True)  # type: ignore[attr-defined]
        self._note(test, "failed")


def run_module(name: str, out: Path) -> None:
    unittest.defaultTestLoader.loadTestsFromName(name).run(Recorder(out))


def run(module: str, environment: dict[str, str], folder: Path, timeout_s: int) -> Outcomes:
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{module}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--child", module, str(out)]
    run_logged(command, environment, folder / f"{module}.log", timeout_s)
    if not out.exists():
        return {}
    outcomes: Outcomes = json.loads(out.read_text())
    return outcomes


def modules(package: str, only: str) -> list[str]:
    found = importlib.import_module(package)
    walked = pkgutil.walk_packages(found.__path__, f"{package}.", onerror=lambda _: None)
    names = [m.name for m in walked if m.name.rsplit(".", 1)[-1].startswith("test_")]
    return sorted(name for name in names if only in name)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        run_module(sys.argv[2], Path(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description="a library's tests natively and through Outboard")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", default=["numba.cuda.tests"])
    parser.add_argument("--only", default="", help="modules with this in their name")
    parser.add_argument("--jobs", type=int, default=8, help="processes at a time")
    parser.add_argument("--timeout", type=int, default=240, help="seconds for a module's run")
    parser.add_argument("--logs", type=Path, help="folder for logs and outcomes")
    options = parser.parse_args()
    if "OUTBOARD_SESSION" not in os.environ:  # all remote tests join one session
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = ":".join(filter(None, paths))
        outboard = [sys.executable, "-m", "outboard", "run", "-q", "--"]
        return subprocess.call([*outboard, sys.executable, __file__, *sys.argv[1:]])
    logs = options.logs or Path(tempfile.mkdtemp(prefix="outboard-suites-"))
    kinds = {kind: environments()[kind] for kind in ("native", "outboard")}
    names = [name for package in options.packages for name in modules(package, options.only)]

    def both(work: tuple[str, str]) -> dict[str, Outcomes]:
        name, attempt = work
        return {
            kind: run(name, environment, logs / f"{kind}{attempt}", options.timeout)
            for kind, environment in kinds.items()
        }

    def differing(ends: dict[str, Outcomes]) -> set[str]:
        native, remote = ends["native"], ends["outboard"]
        return {test for test in native | remote if native.get(test) != remote.get(test)}

    with ThreadPoolExecutor(options.jobs) as pool:
        first = dict(zip(names, pool.map(both, [(name, "") for name in names]), strict=True))
        doubtful = [name for name in names if differing(first[name])]
        second = dict(zip(doubtful, pool.map(both, [(n, "-again") for n in doubtful]), strict=True))
    counts = Counter(outcome for ends in first.values() for outcome in ends["native"].values())
    wrong = 0
    for name, ends in second.items():
        for test in sorted(differing(ends) & differing(first[name])):
            wrong += 1
            native, remote = (ends[kind].get(test, "not run") for kind in kinds)
            print(f"DIFFERENT {test}: native {native}, Outboard {remote}")
    said = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    print(f"{len(names)} modules; natively {said}; {wrong} different; logs in {logs}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
