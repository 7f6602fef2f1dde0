"""GPU errors as NVML tells them, with a library that says what a test wants.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from outboard.doctor.gpu_errors import Nvml, gpu_errors

_NOT_SUPPORTED = 3


class Library:
    """An NVML of one GPU; a value that is None is not supported."""

    def __init__(self, **values: Any) -> None:
        self.values = {"ecc": 0, "rows": (0, 0), "now": 40, "slowdown": 90, "start": 0, **values}

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return int(self.values["start"])

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        return self._put(1, count)

    def nvmlDeviceGetHandleByIndex_v2(self, _index: Any, _handle: Any) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetTotalEccErrors(self, _device: Any, kind: int, counter: int, out: Any) -> int:  # noqa: N802
        assert (kind, counter) == (1, 0)
        return self._put(self.values["ecc"], out)

    def nvmlDeviceGetRemappedRows(  # noqa: N802
        self, _device: Any, _corrected: Any, _uncorrected: Any, pending: Any, failed: Any
    ) -> int:
        if self.values["rows"] is None:
            return _NOT_SUPPORTED
        self._put(self.values["rows"][0], pending)
        return self._put(self.values["rows"][1], failed)

    def nvmlDeviceGetTemperature(self, _device: Any, _sensor: int, out: Any) -> int:  # noqa: N802
        return self._put(self.values["now"], out)

    def nvmlDeviceGetTemperatureThreshold(self, _device: Any, _kind: int, out: Any) -> int:  # noqa: N802
        return self._put(self.values["slowdown"], out)

    @staticmethod
    def _put(value: int | None, out: Any) -> int:
        if value is None:
            return _NOT_SUPPORTED
        out._obj.value = value
        return 0


def found(monkeypatch: pytest.MonkeyPatch, **values: Any) -> tuple[list[str], list[str], int]:
    monkeypatch.setattr(ctypes, "CDLL", lambda _path: Library(**values))
    return gpu_errors(Nvml("libnvidia-ml.so.1"))


def test_a_gpu_without_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch) == ([], [], 1)


def test_what_a_gpu_does_not_support_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, ecc=None, rows=None, now=None, slowdown=None) == ([], [], 1)
    monkeypatch.delattr(Library, "nvmlDeviceGetRemappedRows")
    assert found(monkeypatch) == ([], [], 1)


def test_uncorrected_errors_and_failed_rows_are_grave(monkeypatch: pytest.MonkeyPatch) -> None:
    grave, lesser, _ = found(monkeypatch, ecc=2, rows=(1, 1))
    assert grave == [
        "GPU 0: 2 uncorrected memory errors since boot",
        "GPU 0: memory rows could not be replaced: the GPU is worn out",
    ]
    assert lesser == []


def test_rows_that_wait_and_heat_are_lesser(monkeypatch: pytest.MonkeyPatch) -> None:
    grave, lesser, _ = found(monkeypatch, rows=(1, 0), now=91)
    assert grave == []
    assert [line.partition(": ")[2][:11] for line in lesser] == ["memory rows", "so hot that"]


def test_a_library_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="nvmlInit answered 9"):
        found(monkeypatch, start=9)
