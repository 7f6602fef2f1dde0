"""Cases of one framework: each computes arrays, which land in a folder as they are done.

SPDX-License-Identifier: Apache-2.0

A file of cases ends with `cases.main()`; `python FILE FOLDER [CASE…]` runs them in their order and
writes `FOLDER/CASE.npz`, or `FOLDER/CASE.txt` with the traceback of one that failed. A case that
takes the whole process down leaves neither.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Case = Callable[[], Mapping[str, Any]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def array(value: Any) -> np.ndarray[Any, Any]:
    """A NumPy array of a tensor, a device array, a number or text, bit for bit."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # exact
        return np.asarray(value.numpy())
    if hasattr(value, "get"):
        return np.asarray(value.get())
    return np.asarray(value)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or CASES:
        begin = time.monotonic()
        try:
            result = {key: array(value) for key, value in CASES[name]().items()}
        except Exception:  # what a framework raises is the result of the case
            (folder / f"{name}.txt").write_text(traceback.format_exc(), encoding="utf-8")
            print(f"{name}: failed", flush=True)
            continue
        partial = folder / f".{name}.npz"
        with partial.open("wb") as file:
            np.savez(file, **result)
        os.replace(partial, folder / f"{name}.npz")
        print(f"{name}: {time.monotonic() - begin:.2f} s", flush=True)
