"""A container gets the libraries, the socket and nothing that is the service's own.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import re

from outboard.service.containers import CDI_FILE, DEVICE, cdi, flags
from outboard.service.environment import gains
from outboard.service.folders import ServiceFolders

SHIM = "/usr/lib/outboard/lib/shim"
DEFAULT = ServiceFolders("default", system=True)
GAINS = gains(DEFAULT, SHIM, software=True)
# What the specification allows: vendor/class, and an environment without a path that images have.
KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z][A-Za-z0-9_-]*[A-Za-z0-9]")


def test_the_specification_has_the_device_that_people_name() -> None:
    specification = json.loads(cdi(DEFAULT, SHIM, GAINS))
    assert KIND.fullmatch(specification["kind"])
    (device,) = specification["devices"]
    assert f"{specification['kind']}={device['name']}" == DEVICE
    assert CDI_FILE.startswith("/etc/cdi/")


def test_readers_of_the_specifications_version_know_every_field() -> None:
    specification = json.loads(cdi(DEFAULT, SHIM, GAINS))
    assert specification["cdiVersion"] == "0.3.0"
    assert set(specification) == {"cdiVersion", "kind", "devices"}


def test_the_libraries_lie_where_every_loader_looks() -> None:
    (device,) = json.loads(cdi(DEFAULT, SHIM, GAINS))["devices"]
    edits = device["containerEdits"]
    targets = {mount["containerPath"]: mount["hostPath"] for mount in edits["mounts"]}
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64"):
        assert targets[f"{folder}/libcuda.so.1"] == f"{SHIM}/libcuda.so.1"
    assert not [setting for setting in edits["env"] if setting.startswith("LD_LIBRARY_PATH")]
    assert "CUPY_COMPILE_WITH_PTX=1" in edits["env"]
    assert all("ro" in mount["options"] for mount in edits["mounts"])


def test_root_in_a_container_does_not_see_what_the_service_keeps_to_itself() -> None:
    (device,) = json.loads(cdi(DEFAULT, SHIM, GAINS))["devices"]
    for mount in device["containerEdits"]["mounts"]:
        assert not f"{DEFAULT.private}/".startswith(f"{mount['hostPath']}/"), mount


def test_flags_say_the_same_for_who_has_no_cdi() -> None:
    words = flags(DEFAULT, SHIM, GAINS)
    (device,) = json.loads(cdi(DEFAULT, SHIM, GAINS))["devices"]
    edits = device["containerEdits"]
    mounts = edits["mounts"]
    volumes = [f"--volume={one['hostPath']}:{one['containerPath']}:ro" for one in mounts]
    assert [word for word in words if word.startswith("--volume=")] == volumes
    assert [word for word in words if word.startswith("--env=")] == [
        f"--env={setting}" for setting in edits["env"]
    ]
    assert f"OUTBOARD_SESSION={DEFAULT.session_file}" in edits["env"]
