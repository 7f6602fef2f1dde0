"""Every way in which a program starts has the GPUs, with no word of Outboard typed.

SPDX-License-Identifier: Apache-2.0

On the client machine of two on a network, or one with a kernel of its own (`make machine-qemu`).
"""

from __future__ import annotations

import time

import pytest

from tests.machines.guest import GUARD_S, PROGRAMS, USER, Guest, eventually, measured
from tests.machines.site import MATRIX, PASS, REQUEST, Site

LOOP = f"{PROGRAMS}/longLoop"
SSH = "ssh -o StrictHostKeyChecking=no"
# The bar for units of the machine.
MOST_EXPOSURE = 3.0
# A container's files: a loader and libraries of its own, and nothing of the service.
ROOT = "/var/tmp/container"
_CONTAINER = f"""
needed() {{
  echo {MATRIX} {LOOP} /bin/ls /etc/hosts
  ldd {MATRIX} /bin/ls /usr/lib/outboard/lib/shim/libcuda.so.1 |
    awk '$2 == "=>" {{ print $3 }} /ld-linux/ {{ print $1 }}'
}}
mkdir -p {ROOT} && needed | sort -u | xargs cp -L --parents -t {ROOT}
"""

# The devices that a monitor sees.
_COUNT = """
import ctypes
nvml, count = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_uint()
nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
print(count.value)
"""


def _podman(words: str, command: str) -> str:
    return f"sh {PROGRAMS}/podman.sh run --rm --network=host {words} --rootfs {ROOT} {command}"


@pytest.fixture(scope="module", autouse=True)
def cron_job(site: Site) -> None:
    """Cron runs a job once a minute: it is asked for at the beginning, and looked at in the end."""
    site.client.sh(f"echo '* * * * * {MATRIX} > /tmp/cron.out 2>&1' | crontab -u {USER} -")


@pytest.fixture
def client(site: Site) -> Guest:
    site.client.state("active")
    return site.client


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(f"su -l {USER} -c {MATRIX}", id="login shell"),
        pytest.param(f"su {USER} -c 'sudo {MATRIX}'", id="plain sudo"),
        pytest.param(f"su {USER} -c 'sudo -i {MATRIX}'", id="sudo -i"),
        pytest.param(f"su -l {USER} -c '{SSH} localhost {MATRIX}'", id="ssh host command"),
        pytest.param(
            f"su -l {USER} -c '(echo {MATRIX}; echo exit) | {SSH} -tt localhost'",
            id="interactive ssh",
        ),
        pytest.param(f"systemd-run --quiet --wait --pipe {MATRIX}", id="system service"),
        pytest.param(
            f"systemd-run --quiet --wait --pipe -p DynamicUser=yes {MATRIX}", id="dynamic user"
        ),
        pytest.param(f"su -l {USER} -c 'zsh -lc {MATRIX}'", id="zsh"),
        pytest.param(f"su -l {USER} -c 'fish -lc {MATRIX}'", id="fish"),
        pytest.param(f"su -l {USER} -c 'sh -c {MATRIX}'", id="plain sh"),
        pytest.param(f"env -i {MATRIX}", id="no environment at all"),
    ],
)
def test_programs_have_gpus_without_a_word_of_outboard(
    client: Guest, command: str, request: pytest.FixtureRequest
) -> None:
    started = time.monotonic()
    done = client.sh(command)
    assert PASS in done.out, done
    assert "outboard" not in done.err
    measured(f"matrixMul by {request.node.callspec.id}", time.monotonic() - started)


def test_a_user_service_has_gpus(client: Guest) -> None:
    client.sh(f"loginctl enable-linger {USER}")
    uid = client.sh(f"id -u {USER}").out.strip()
    run = f"XDG_RUNTIME_DIR=/run/user/{uid} systemd-run --user --quiet --wait --pipe {MATRIX}"

    def computes() -> bool:
        return PASS in client.call(["su", USER, "-c", run]).out

    eventually("the user's manager runs a unit", computes)
    client.sh(f"loginctl disable-linger {USER}")


def test_a_container_has_gpus_by_what_the_machines_cdi_file_says(client: Guest) -> None:
    done = client.sh(_CONTAINER)
    assert done.code == 0, done
    contain = f"unshare --mount python3 {PROGRAMS}/contain.py /etc/cdi/outboard.yaml {ROOT}"
    done = client.sh(f"{contain} {MATRIX}")
    assert PASS in done.out, done


@pytest.mark.parametrize("words", ["--device outboard/gpu=all", "$(outboard service env --docker)"])
def test_a_container_started_by_hand_has_gpus(client: Guest, words: str) -> None:
    assert client.sh(_CONTAINER).code == 0
    started = time.monotonic()
    done = client.sh(_podman(words, MATRIX))
    assert PASS in done.out, done
    measured(f"matrixMul by podman run {words}", time.monotonic() - started)
    shown = client.sh(_podman(words, "/bin/ls -R /run/outboard"))
    assert "session.json" in shown.out, shown
    assert "lease.json" not in shown.out
    assert "lease.json" in client.sh("/bin/ls -R /run/outboard").out


def test_two_containers_are_two_programs_of_the_service(client: Guest) -> None:
    assert client.sh(_CONTAINER).code == 0
    started = [
        client.start(["sh", "-c", _podman("-i --device outboard/gpu=all", LOOP)]) for _ in range(2)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline().startswith("READY")
        found = client.service()["processes"]  # cron's job may be among them
        assert len({one["pid"] for one in found if one["program"] == "longLoop"}) == 2, found
    finally:
        client.sh("pkill -9 -x longLoop")
        for one in started:
            one.communicate(timeout=GUARD_S)
    eventually("nobody uses the service", lambda: not client.service()["processes"])


def test_the_units_of_the_machine_are_hardened(client: Guest) -> None:
    for unit in ("outboard@default", "outboard-ready@default", "outboard-join"):
        overall = client.sh(f"systemd-analyze security --no-pager {unit}.service | tail -1").out
        assert float(overall.rpartition(": ")[2].split()[0]) < MOST_EXPOSURE, overall


def test_a_cron_job_has_gpus(client: Guest) -> None:
    eventually("cron has run it", lambda: PASS in client.sh("cat /tmp/cron.out").out)
    client.sh(f"crontab -r -u {USER}")


def test_a_private_service_is_its_users_alone(client: Guest) -> None:
    assert client.sh(f"outboard service install {REQUEST} --for-user {USER}").code == 0
    client.state("active")
    assert PASS in client.call(["su", "-l", USER, "-c", MATRIX]).out
    other = client.call(["su", "-l", "user2", "-c", MATRIX])
    assert other.code != 0
    assert "the GPU service here is for another user" in other.err, other
    client.write("/tmp/count.py", _COUNT)
    assert client.call(["su", "-l", USER, "-c", "python3 /tmp/count.py"]).out == "1\n"
    assert client.call(["su", "-l", "user2", "-c", "python3 /tmp/count.py"]).out == "0\n"
    assert "Software GPU" not in client.call(["su", "-l", "user2", "-c", "outboard status"]).out
    files = "find /run/outboard -type f -readable -o -type s -writable"
    assert client.call(["su", "-l", "user2", "-c", files]).out == ""
    assert client.sh("systemctl restart outboard-ready@default").code == 0
    assert client.sh(f"outboard service install {REQUEST}").code == 0
    client.state("active")
    assert PASS in client.call(["su", "-l", "user2", "-c", MATRIX]).out
