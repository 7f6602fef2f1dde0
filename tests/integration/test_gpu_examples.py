"""`tests/gpu/examples.py`, which compares programs that others wrote, sees what differs.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.gpu.printed import judgements, settled
from tests.integration.harness import ROOT, SITE_PACKAGES, Pool, run_program

KERNEL = """
#include <cstdio>
__global__ void square(int *values) { values[threadIdx.x] = threadIdx.x * threadIdx.x; }
int main() {
  int *values, last = 0;
  cudaMalloc(&values, 32 * sizeof(int));
  square<<<1, 32>>>(values);
  cudaMemcpy(&last, values + 31, sizeof(int), cudaMemcpyDeviceToHost);
  std::printf("31 squared: %d, at %p\\n", last, static_cast<void *>(&last));
  return last == 961 ? 0 : 1;
}
"""
EXAMPLES = {
    "square.cu": KERNEL,
    "equal.py": """
import ctypes, sys
driver = ctypes.CDLL("libcuda.so.1")
count = ctypes.c_int()
assert driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
print(count.value, sys.argv[1:], greeting)
""",
    "differs.py": "import os; print('OUTBOARD_SESSION' in os.environ)",
    "fails.py": "import os, sys; sys.exit('lost it' if 'OUTBOARD_SESSION' in os.environ else 0)",
    "unsteady.py": "import os; print(os.urandom(8).hex()); print('PASSED')",
    "judges.py": """
import os
print(os.urandom(8).hex())
print('FAILED' if 'OUTBOARD_SESSION' in os.environ else 'PASSED')
""",
    "warns.py": "import os, sys; print('OUTBOARD_SESSION' in os.environ, file=sys.stderr)",
    "absent.py": "import a_package_that_nobody_has",
    "two.py": "print('two GPUs')",
    "slow.py": "while True: pass",
    "common/shared.py": "raise SystemExit('not an example')",
}
RULES = """
[[example]]
match = ["*/equal.py"]
arguments = ["--quick"]
before = "import builtins; builtins.greeting = 'hello'"
[[example]]
match = ["*/two.py"]
gpus = 2
[[example]]
match = ["*/slow.py"]
timeout_s = 1
"""


def test_examples_are_compared_and_the_others_have_a_reason(pool: Pool, tmp_path: Path) -> None:
    for name, text in EXAMPLES.items():
        path = tmp_path / "toys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "rules.toml").write_text(RULES)
    table = tmp_path / "table.json"
    compiler = SITE_PACKAGES / "nvidia/cu13/bin"  # where the machine has no toolkit
    environment = pool.environment | {
        "LD_LIBRARY_PATH": str(pool.native.softgpu),
        "PATH": f"{os.environ['PATH']}:{compiler}",
    }
    command: list[str | Path] = [sys.executable, ROOT / "tests/gpu/examples.py", tmp_path / "toys"]
    command += ["--rules", tmp_path / "rules.toml", "--json", table, "--logs", tmp_path / "logs"]
    outcome = run_program(command, environment)
    assert outcome.returncode == 1, outcome.describe()
    rows = {row["name"]: row for row in json.loads(table.read_text())["examples"]}
    said = {name: f"{row['verdict']}: {row['note']}" for name, row in rows.items()}
    assert said == {
        "toys/absent.py": "left out: the package a_package_that_nobody_has is missing",
        "toys/differs.py": "DIFFERENT: 'False' became 'True'",
        "toys/equal.py": "equal: ",
        "toys/fails.py": "DIFFERENT: natively 0, exit code 1: lost it",
        "toys/judges.py": "DIFFERENT: its own judgement: 'PASSED'",
        "toys/slow.py": "left out: natively: not over after 1 s",
        "toys/square.cu": "equal: ",
        "toys/two.py": "left out: needs 2 GPUs, the session has 1",
        "toys/unsteady.py": "judged: native runs print different things",
        "toys/warns.py": "DIFFERENT: stderr: 'False' became 'True'",
    }
    assert "1 ['--quick'] hello" in (tmp_path / "logs/toys/equal.py/outboard/stdout").read_text()
    assert "DIFFERENT" in outcome.stdout


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("memcpy took 12.5 ms", "memcpy took 0.75 ms"),
        ("Performance= 3.20 GFlop/s, Time= 0.041 msec", "Performance= 1e2 GFlop/s, Time= 2 msec"),
        ("buffer at 0x7f12a0000000", "buffer at 0x302000000"),
        ("copied with 812.7 GB/s", "copied with 9.1 GB/s"),
        ("10%\r50%\r100%", "33%\r100%"),
        ("wrote /tmp/a/out.pgm", "wrote /tmp/b/out.pgm"),
    ],
)
def test_what_changes_from_run_to_run_is_no_difference(one: str, other: str) -> None:
    assert settled(one, "/tmp/a") == settled(other, "/tmp/b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sum = 12.5", "sum = 12.25"),
        ("Size= 131072 Ops, WorkgroupSize= 1024", "Size= 131072 Ops, WorkgroupSize= 512"),
        ("Result = PASS", "Result = FAIL"),
        ("a[3] = 0x2a", "a[3] = 0x2b"),
        ("24 SMs, 3 streams", "24 SMs, 4 streams"),
    ],
)
def test_a_different_result_is_a_difference(one: str, other: str) -> None:
    assert settled(one, "/tmp/a") != settled(other, "/tmp/a")


def test_a_judgement_counts_without_its_numbers() -> None:
    assert judgements(["error 1e-7, PASSED", "step 3"]) == judgements(["error 2e-7, PASSED"])
    assert judgements(["Result = PASS"]) != judgements(["Result = FAIL"])
