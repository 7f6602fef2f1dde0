"""How people work on a machine with GPUs that it does not have: desktops, notebooks, questions.

SPDX-License-Identifier: Apache-2.0

On the client machine of two on a network, or one with a kernel of its own (`make machine-qemu`).
"""

from __future__ import annotations

import shutil
import sys
import time
from importlib.metadata import distribution

import pytest

from tests.machines.guest import PROGRAMS, USER, Guest, measured
from tests.machines.site import MATRIX, PASS, Site
from tools.server_libraries import closure

JUPYTER = "/opt/jupyter"
SHIM = "/usr/lib/outboard/lib/shim"
DIFF = "outboard service env --diff --json"
PROFILE = "/etc/profile.d/outboard.sh"
# How a session of the user begins: where a display manager asks PAM for it, and by `su -l`.
DESKTOP = f"systemd-run --quiet --wait --pipe -p PAMName=desktop -p User={USER}"
LOGIN = f"su -l {USER} -c"


@pytest.fixture
def client(site: Site) -> Guest:
    site.client.state("active")
    return site.client


@pytest.fixture(scope="module")
def notebook(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command that runs a cell in a kernel, in a Python environment with Jupyter's kernel."""
    asked = "import sys; print(*sys.version_info[:2], sep='.')"
    version = site.client.call(["python3", "-c", asked]).out.strip()
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version != here:
        pytest.skip(f"the machine has Python {version}, and the kernel's packages are of {here}")
    folder = tmp_path_factory.mktemp("jupyter")
    for each in (distribution("ipykernel"), *closure("ipykernel", frozenset()).values()):
        for path in each.files or ():
            if path.parts[0] not in ("..", "/") and path.suffix != ".pyc":
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(path.locate()), folder / path)
    made = site.client.sh(f"python3 -m venv --without-pip {JUPYTER}")
    assert made.code == 0, made
    site.client.send(folder, f"{JUPYTER}/lib/python{version}/site-packages")
    return f"{JUPYTER}/bin/python {PROGRAMS}/notebook.py"


def test_a_graphical_login_has_gpus(client: Guest) -> None:
    show = f"echo shim=$TRITON_LIBCUDA_PATH; {MATRIX}"
    client.write("/tmp/show.sh", show)
    done = client.sh(f"{DESKTOP} sh {PROGRAMS}/desktop.sh sh /tmp/show.sh")
    # In the session itself, and started by the user's manager.
    assert done.out.count(PASS) == 2, done
    assert done.out.count(f"shim={SHIM}") == 2, done


@pytest.mark.parametrize("way", ["su -l", "a system service", "a desktop", "a user service"])
def test_a_jupyter_kernel_has_gpus(client: Guest, notebook: str, way: str) -> None:
    started = time.monotonic()
    by = {
        "su -l": f"{LOGIN} '{notebook}'",
        "a system service": f"systemd-run --quiet --wait --pipe -p User={USER} {notebook}",
        "a desktop": f"{DESKTOP} sh {PROGRAMS}/desktop.sh {notebook}",
        "a user service": f"{DESKTOP} systemd-run --user --quiet --wait --pipe {notebook}",
    }
    done = client.sh(by[way])
    lines = done.out.splitlines()
    assert "PASS" in lines, done
    # What PyTorch's compiler wants to be told besides; system services are told nothing.
    assert way == "a system service" or f"TRITON_LIBCUDA_PATH={SHIM}" in lines, done
    measured(f"a cell of a new Jupyter kernel by {way}", time.monotonic() - started)


def test_the_origin_of_each_variable_is_shown(client: Guest) -> None:
    login = client.json("su", "-l", USER, "-c", DIFF)
    assert {"LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH"} <= set(login)
    for name, origin in login.items():
        assert origin["here"], (name, origin)
        assert origin["files"][PROFILE] == "login shells", (name, origin)
    assert login == client.json("su", "-l", "user2", "-c", DIFF)
    bare = client.json("sh", "-c", DIFF)
    assert bare["LD_LIBRARY_PATH"]["now"] is None
    assert not bare["LD_LIBRARY_PATH"]["here"]
    # What it names is what does it: without the file a login shell lacks the variable.
    client.sh(f"mv {PROFILE} /tmp/outboard.sh")
    lacking = client.json("su", "-l", USER, "-c", DIFF)
    client.sh(f"mv /tmp/outboard.sh {PROFILE}")
    assert not lacking["LD_LIBRARY_PATH"]["here"]
    assert PROFILE not in lacking["LD_LIBRARY_PATH"]["files"]
    for place in ("(libraries)", "(session)", "/etc/ld.so.conf.d/outboard.conf"):
        assert place in client.sh("outboard service env --diff").out


def test_the_flags_for_a_container_are_the_same_for_whoever_asks(client: Guest) -> None:
    asked = "outboard service env --docker"
    flags = client.sh(asked).out
    assert "--volume=/run/outboard/default:/run/outboard/default:ro" in flags
    assert client.call(["su", "-l", USER, "-c", asked]).out == flags
