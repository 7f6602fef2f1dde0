"""On a real GPU: programs that others wrote, natively and through Outboard, with equal output.

SPDX-License-Identifier: Apache-2.0

Run on a machine with an NVIDIA GPU after `make build`:
`python3 tests/gpu/examples.py FOLDER… [--only GLOB] [--jobs 3] [--gpus 2] [--json FILE]`.
Examples are the Python files below FOLDER, the folders with a Makefile and C++ or CUDA sources,
and CUDA sources that stand alone. `tests/gpu/examples.toml` has their arguments. Each runs natively
twice and through Outboard once. Exit code and what it prints have to be the same, but for times,
rates and addresses; where native runs differ from each other, only the exit code and what the
program says of its own result. What does not run natively is left out, and the table says why.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.gpu.compare import environments
from tests.gpu.printed import first_difference, judgements, settled

PACKAGES = ("cuda-bindings", "cuda-core", "numba-cuda", "cupy-cuda13x", "torch", "triton", "jax")
OLDER_SOURCES = Path(__file__).with_name("older_sources.hpp")
RULES = Path(__file__).with_suffix(".toml")
# Sources that examples share and that are none themselves.
SHARED_FOLDERS = {"common", "Common", "utils", "data"}
SHARED_FILES = {"__init__.py", "conftest.py", "setup.py"}
# A program that calls itself nothing else is given up after this.
TIMEOUT_S = 120
# How often a difference is looked for in native runs before it counts.
NATIVE_RUNS = 4


@dataclass(frozen=True)
class Rule:
    """What `examples.toml` says of the examples that match."""

    arguments: list[str] = field(default_factory=list)
    python: list[str] = field(default_factory=list)  # before the file: ["-m", "pytest"]
    before: str = ""  # Python run in the same interpreter first
    environment: dict[str, str] = field(default_factory=dict)
    timeout_s: int = TIMEOUT_S
    gpus: int = 1
    left_out: str = ""  # the reason
    judged: str = ""  # why only the exit code and its judgements are compared


@dataclass(frozen=True)
class Example:
    name: str
    path: Path  # a Python file, a CUDA source or a folder with a Makefile
    top: Path  # the FOLDER it was found below
    rule: Rule


@dataclass(frozen=True)
class Ending:
    code: int | None  # none: it took too long
    lines: list[str]  # of stdout
    errors: list[str]  # of stderr
    seconds: float


@dataclass(frozen=True)
class Row:
    name: str
    verdict: str  # equal, judged, DIFFERENT or left out
    note: str = ""
    native_s: float = 0.0
    outboard_s: float = 0.0


def rule_of(name: str, rules: list[dict[str, Any]]) -> Rule:
    """All that matches, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for entry in rules:
        if any(fnmatch.fnmatch(name, glob) for glob in entry["match"]):
            merged |= {key: value for key, value in entry.items() if key != "match"}
    return Rule(**merged)


def sources(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.suffix in {".cu", ".cpp", ".c"}]


def stands_alone(path: Path) -> bool:
    if path.suffix == ".py":
        return path.name not in SHARED_FILES
    has_main = re.compile(r"\bmain\s*\(")
    return path.suffix == ".cu" and bool(has_main.search(path.read_text(errors="replace")))


def paths_below(folder: Path) -> Iterator[Path]:
    """The examples of a folder, those below it after them."""
    if folder.name in SHARED_FOLDERS or folder.name.startswith((".", "_")):
        return
    if (folder / "Makefile").exists() and sources(folder):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from paths_below(path)
        elif stands_alone(path):
            yield path


def found_in(top: Path, rules: list[dict[str, Any]]) -> list[Example]:
    names = ((path, f"{top.name}/{path.relative_to(top)}") for path in paths_below(top))
    return [Example(name, path, top, rule_of(name, rules)) for path, name in names]


def compute_capability() -> int:
    """90 for an H100: what CUDA sources are compiled for."""
    driver = ctypes.CDLL("libcuda.so.1")
    value, digits = ctypes.c_int(), []
    assert driver.cuInit(0) == 0, "no GPU in this session"
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR}
        assert driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0) == 0
        digits.append(value.value)
    return digits[0] * 10 + digits[1]


class Builder:
    """Compiles below a copy of each folder, so that the examples stay as they came."""

    def __init__(self, scratch: Path, capability: int) -> None:
        self._scratch = scratch
        self._capability = capability
        nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
        # /usr/local/bin/nvcc may be a script that starts the toolkit's.
        words = subprocess.run(
            [nvcc, "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=False
        ).stderr
        top = re.search(r"^#\$ TOP=(.+)$", words, re.MULTILINE)
        self.toolkit = Path(top[1]).resolve() if top else Path("/usr/local/cuda")
        # A libcuda.so to link with: the session's.
        self._driver = os.environ["LD_LIBRARY_PATH"].split(":")[0]
        self._nvcc = scratch / "nvcc"

    def prepare(self, tops: list[Path]) -> None:
        for top in tops:
            shutil.copytree(top, self._scratch / top.name, dirs_exist_ok=True)
        # The headers of CUDA 13 need C++17, for which older Makefiles do not ask.
        self._nvcc.write_text(
            "#!/bin/sh\n"
            "for word do\n"
            "  shift\n"
            '  case $word in -std=*|--std=*) ;; *) set -- "$@" "$word" ;; esac\n'
            "done\n"
            f'exec {self.toolkit}/bin/nvcc -std=c++17 -include {OLDER_SOURCES} "$@"\n'
        )
        self._nvcc.chmod(0o755)

    def build(self, example: Example) -> tuple[Path | None, str]:
        """The program, or none and what the compiler said."""
        place = self._scratch / example.top.name / example.path.relative_to(example.top)
        if place.is_dir():
            folder, program = place, place / place.name
            command = ["make", f"NVCC={self._nvcc}", f"CUDA_PATH={self.toolkit}"]
            command += [f"SMS={self._capability}", f"CUDALIB={self._driver}"]
        else:
            folder, program = place.parent, place.with_suffix("")
            command = [str(self._nvcc), f"-arch=sm_{self._capability}"]
            command += [place.name, "-o", program.name, "-lcuda"]
        # NVIDIA's wheels have their libraries in lib.
        libraries = [self._driver, str(self.toolkit / "lib"), os.environ.get("LIBRARY_PATH", "")]
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"LIBRARY_PATH": ":".join(filter(None, libraries))},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0 and program.exists():
            return program, ""
        return None, done.stdout + done.stderr


def command_of(rule: Rule, program: Path) -> list[str]:
    if program.suffix != ".py":
        return [str(program), *rule.arguments]
    if not rule.before:
        return [sys.executable, *rule.python, str(program), *rule.arguments]
    # The file's folder is where a script finds its neighbours.
    start = (
        f"import runpy, sys; sys.path[0] = {str(program.parent)!r}\n{rule.before}\n"
        f"runpy.run_path({str(program)!r}, run_name='__main__')"
    )
    return [sys.executable, "-c", start, *rule.arguments]


def run(example: Example, program: Path, environment: dict[str, str], logs: Path) -> Ending:
    """One run, in a copy of the example's folder; what it printed stays in `logs`."""
    rule = example.rule
    # Where examples find what they share; their own folder, Python adds by itself.
    above = [p for p in example.path.parent.parents if p.is_relative_to(example.top)]
    python_path = [str(p) for p in above] + [environment.get("PYTHONPATH", "")]
    # Each run compiles what it needs itself: a kernel from another's cache proves nothing.
    caches = {
        variable: str(logs / "caches" / variable)
        for variable in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUPY_CACHE_DIR")
    }
    everything = environment | caches | {"PYTHONPATH": ":".join(filter(None, python_path))}
    here = logs / "folder"
    logs.mkdir(parents=True)
    shutil.copytree(program.parent, here, ignore=shutil.ignore_patterns("*.o", "__pycache__"))
    begin = time.monotonic()
    with (logs / "stdout").open("w") as output, (logs / "stderr").open("w") as errors:
        process = subprocess.Popen(
            command_of(rule, here / program.name),
            cwd=here,
            env=everything | rule.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        code: int | None
        try:
            code = process.wait(rule.timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    seconds = time.monotonic() - begin
    shutil.rmtree(here)
    shutil.rmtree(logs / "caches", ignore_errors=True)
    printed, said = (
        settled((logs / name).read_text(errors="replace"), str(here))
        for name in ("stdout", "stderr")
    )
    # What the launcher and the software GPU say is not the program's.
    own = ("outboard:", "softgpu:")
    return Ending(code, printed, [line for line in said if not line.startswith(own)], seconds)


def ended(ending: Ending, rule: Rule) -> str:
    if ending.code is None:
        return f"not over after {rule.timeout_s} s"
    words = ending.errors or ending.lines or [""]
    # A test framework has its own last words below the error.
    errors = [line for line in words if re.match(r"[\w.]*(?:Error|Exception)\b", line)]
    return f"exit code {ending.code}: {(errors or words)[-1][:200]}"


def why_not_built(said: str) -> str:
    """The compiler's first error, or that of make."""
    missing = re.search(r"fatal error: (\S+): No such file", said)
    if missing:
        return f"not built: {missing[1]} is missing"
    errors = [line for line in said.splitlines() if "error:" in line or "cannot find" in line]
    return f"not built: {(errors or said.splitlines() or ['?'])[0].strip()[:200]}"


def why_not_native(ending: Ending, rule: Rule) -> str:
    missing = re.search(r"ModuleNotFoundError: No module named '([^']+)'", "\n".join(ending.errors))
    return f"the package {missing[1]} is missing" if missing else "natively: " + ended(ending, rule)


def compare(example: Example, builder: Builder, gpus: int, logs: Path) -> Row:
    rule, name = example.rule, example.name
    if rule.left_out:
        return Row(name, "left out", rule.left_out)
    if rule.gpus > gpus:
        return Row(name, "left out", f"needs {rule.gpus} GPUs, the session has {gpus}")
    program: Path | None = example.path
    if example.path.suffix != ".py":
        program, said = builder.build(example)
        if program is None:
            return Row(name, "left out", why_not_built(said))
    assert program is not None
    kinds, place = environments(), logs / name
    # One after the other: those that share memory by name would find each other.
    native = [run(example, program, kinds["native"], place / "native")]
    if native[0].code != 0:
        return Row(name, "left out", why_not_native(native[0], rule))
    native.append(run(example, program, kinds["native"], place / "again"))
    remote = run(example, program, kinds["outboard"], place / "outboard")
    times = (native[0].seconds, remote.seconds)
    if remote.code != 0:
        return Row(name, "DIFFERENT", f"natively 0, {ended(remote, rule)}", *times)

    if rule.judged:
        return judged(Row(name, "judged", rule.judged, *times), native, remote)
    while native[-1].lines == native[0].lines and native[-1].errors == native[0].errors:
        if (remote.lines, remote.errors) == (native[0].lines, native[0].errors):
            return Row(name, "equal", "" if remote.lines else "prints nothing", *times)
        if len(native) == NATIVE_RUNS:
            off = first_difference(native[0].lines, remote.lines)
            off = off or "stderr: " + first_difference(native[0].errors, remote.errors)
            return Row(name, "DIFFERENT", off, *times)
        more = run(example, program, kinds["native"], place / f"native{len(native) + 1}")
        native.append(more)
    note = "native runs print different things"
    return judged(Row(name, "judged", note, *times), native, remote)


def judged(row: Row, native: list[Ending], remote: Ending) -> Row:
    """The row, unless the program says another thing of its own result than all native runs."""
    wanted, got = judgements(native[0].lines), judgements(remote.lines)
    if wanted == got or any(judgements(other.lines) != wanted for other in native):
        return row
    off = [*(wanted - got), *(got - wanted)][0]
    return replace(row, verdict="DIFFERENT", note=f"its own judgement: {off[:160]!r}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="examples natively and through Outboard")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--only", action="append", metavar="GLOB", help="names: '*/simple*'")
    parser.add_argument("--rules", type=Path, default=RULES, help="arguments and the like, TOML")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of the session: the machine's")
    parser.add_argument("--jobs", type=int, default=3, help="examples at a time")
    parser.add_argument("--timeout", type=int, help="seconds for every run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the table for programs")
    parser.add_argument("--logs", type=Path, help="folder for what they printed")
    return parser.parse_args()


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> int:
    options = parse()
    if "OUTBOARD_SESSION" not in os.environ:  # all remote programs join one session
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = ":".join(filter(None, paths))
        module = [sys.executable, "-m", "outboard", "run", "-q", "-n", str(options.gpus), "--"]
        return subprocess.call([*module, sys.executable, __file__, *sys.argv[1:]])
    rules = tomllib.loads(options.rules.read_text(encoding="utf-8"))["example"]
    if options.timeout:
        rules.append({"match": ["*"], "timeout_s": options.timeout})
    tops = [folder.resolve() for folder in options.folders]
    globs = options.only or ["*"]
    examples = [
        example
        for top in tops
        for example in found_in(top, rules)
        if any(fnmatch.fnmatch(example.name, glob) for glob in globs)
    ]
    logs = options.logs or Path(tempfile.mkdtemp(prefix="outboard-examples-"))
    builder = Builder(logs / "built", compute_capability())
    builder.prepare(tops)
    for variable in ("CUDA_HOME", "CUDA_PATH"):  # where some look for headers when they run
        os.environ.setdefault(variable, str(builder.toolkit))
    installed = versions()
    print(", ".join(f"{package} {version}" for package, version in installed.items()))
    rows = []
    counts = dict.fromkeys(("equal", "judged", "DIFFERENT", "left out"), 0)
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda e: compare(e, builder, options.gpus, logs), examples):
            seconds = f"{row.native_s:6.1f} s {row.outboard_s:6.1f} s" if row.native_s else ""
            name = f"{row.name}: {row.note}" if row.note else row.name
            print(f"{row.verdict:9} {seconds:17}  {name}", flush=True)
            rows.append(row)
            counts[row.verdict] += 1
    totals = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"{totals}; logs in {logs}")
    if options.json:
        result = {"packages": installed, "examples": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if counts["DIFFERENT"] or not rows else 0


if __name__ == "__main__":
    raise SystemExit(main())
