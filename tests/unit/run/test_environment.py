"""The environment of a program in a session.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest

from outboard.run.environment import drop_machine_choices, session_environment


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "/shim"),
        ({"LD_LIBRARY_PATH": ""}, "/shim"),
        ({"LD_LIBRARY_PATH": "/a:/b"}, "/shim:/a:/b"),
        ({"LD_LIBRARY_PATH": "/shim"}, "/shim"),
        ({"LD_LIBRARY_PATH": "/a:/shim:/b"}, "/shim:/a:/b"),
    ],
)
def test_the_shims_come_first_and_once(before: dict[str, str], after: str) -> None:
    made = session_environment(before, "/session", "/shim", software=False)
    assert made["LD_LIBRARY_PATH"] == after
    assert made["OUTBOARD_SESSION"] == "/session"
    assert made["TRITON_LIBCUDA_PATH"] == "/shim"
    assert "CUPY_COMPILE_WITH_PTX" not in made


def test_a_software_gpu_gets_ptx() -> None:
    made = session_environment({}, "/session", "/shim", software=True)
    assert made["CUPY_COMPILE_WITH_PTX"] == "1"


def test_what_is_inherited_is_left_as_it_is() -> None:
    inherited = {"A": "b", "CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    made = session_environment(inherited, "/session", "/shim", software=False)
    assert drop_machine_choices(made) == ["CUDA_VISIBLE_DEVICES=1", "CUDA_DEVICE_ORDER=PCI_BUS_ID"]
    assert made["A"] == "b"
    assert set(inherited) == {"A", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}
