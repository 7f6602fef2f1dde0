"""A machine that boots with GPUs it does not have: who gets them, what survives, what is left.

SPDX-License-Identifier: Apache-2.0

The stories run in this order on one machine. Times of leases are a twentieth of what users get.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.machines.guest import GUARD_S, PROGRAMS, USER, Done, Guest, eventually, measured

MATRIX = f"{PROGRAMS}/matrixMul"
LOOP = f"{PROGRAMS}/longLoop"
PASS = "matrixMul: Result = PASS"
INSTALL = "outboard service install -n 1 -p 0.25 --longest-pause 1s"


def passes(done: Done) -> bool:
    return done.code == 0 and PASS in done.out


def login(guest: Guest, command: str = MATRIX, user: str = USER) -> Done:
    return guest.call(["su", "-l", user, "-c", command])


@pytest.fixture
def active(guest: Guest) -> Guest:
    """The machine with its pool, and its service active."""
    guest.sh("systemctl start testpool")
    guest.sh("systemctl reset-failed; systemctl start outboard@default")
    guest.state("active")
    return guest


def test_a_pool_that_is_down_holds_up_no_boot(guest: Guest) -> None:
    done = guest.sh(f"{INSTALL} --wake-timeout 2s --no-start")
    assert done.code == 0, done
    guest.power_off()
    guest.boot()
    started = time.monotonic()
    done = guest.sh("systemctl is-system-running --wait")
    # The bar is fifteen seconds, of which ten are the service's patience.
    measured("a pool that is down: the system runs after", time.monotonic() - started)
    assert done.out.strip() == "running", guest.sh("systemctl --failed --no-pager")
    assert guest.service()["state"] == "waiting"
    refused = login(guest)
    assert refused.code != 0
    assert "the GPU service has no GPU" in refused.err


def test_the_service_is_there_by_itself_once_the_pool_is(guest: Guest) -> None:
    guest.sh("systemctl enable --now testpool")
    guest.state("active")
    assert passes(login(guest))
    status = guest.sh("systemctl show -p StatusText --value outboard@default").out
    assert status.startswith("1 GPU: ")
    assert guest.sh("systemctl show -p ActiveState --value outboard@default").out == "active\n"
    assert guest.sh(INSTALL).code == 0


def test_from_power_on_to_the_first_right_answer(guest: Guest) -> None:
    guest.power_cut()
    started = time.monotonic()
    guest.boot()
    eventually("a login shell computes", lambda: passes(login(guest)))
    measured("from power-on to the first right answer", time.monotonic() - started)


def test_a_restart_keeps_shells_and_running_programs(active: Guest) -> None:
    shell = active.start(["su", "-l", USER])
    loop = active.start(["su", "-l", USER, "-c", LOOP])
    try:
        assert loop.stdout is not None
        assert loop.stdout.readline().startswith("READY")
        before = active.sessions()
        assert active.sh("systemctl restart outboard@default").code == 0
        active.state("active")
        assert active.sessions() == before
        out, _ = shell.communicate(f"{MATRIX}\n", timeout=GUARD_S)
        assert PASS in out
        assert loop.poll() is None
    finally:
        active.sh("pkill -9 -x longLoop")
        loop.communicate(timeout=GUARD_S)
        shell.kill()
        shell.communicate(timeout=GUARD_S)


def test_a_program_that_starts_during_a_restart_waits(active: Guest) -> None:
    script = "systemctl --no-block restart outboard@default; sleep 0.05; " + MATRIX
    for _ in range(3):
        done = active.sh(script)
        assert passes(done), done
    active.state("active")


def test_a_killed_service_is_back_with_its_session(active: Guest) -> None:
    before = active.sessions()
    pid = active.sh("systemctl show -p MainPID --value outboard@default").out.strip()
    active.sh(f"kill -9 {pid}")
    done = login(active)
    assert passes(done), (done, active.sh("journalctl -b --no-pager -u 'outboard@*' | tail -20"))
    active.state("active")
    assert active.sessions() == before


def test_a_service_that_hangs_is_replaced_and_keeps_its_session(active: Guest) -> None:
    before = active.sessions()
    conf = "/run/systemd/system/outboard@default.service.d/20-watchdog.conf"
    active.write(conf, "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n")
    active.sh("systemctl daemon-reload; systemctl restart outboard@default")
    pid = "systemctl show -p MainPID --value outboard@default"
    hung = active.sh(pid).out
    active.sh(f"kill -STOP {hung}")
    eventually("another process", lambda: active.sh(pid).out not in (hung, "0\n"))
    active.state("active")
    assert active.sessions() == before
    assert passes(login(active))
    active.sh(f"rm {conf}; systemctl daemon-reload; systemctl restart outboard@default")


def test_a_killed_pool_is_noticed_and_found_again(active: Guest) -> None:
    active.sh("systemctl kill -s KILL testpool; sleep 0.2; systemctl reset-failed testpool")
    active.sh("systemctl start testpool")
    eventually("a login shell computes again", lambda: passes(login(active)))
    active.state("active")
    assert len(active.sessions()) == 1


def test_a_stop_leaves_nothing_that_varies_and_says_so_in_one_line(active: Guest) -> None:
    shell = active.start(["su", "-l", USER])
    assert active.sh("systemctl stop outboard@default").code == 0
    assert active.sessions() == []
    left = "find /run/outboard -type f -o -type s -o -type l"
    eventually("nothing is left", lambda: active.sh(left).out == "")
    refused = login(active)
    lines = [line for line in refused.err.splitlines() if line.startswith("outboard:")]
    why = "no GPUs: the GPU service of this machine is not running; see why: outboard status"
    assert lines == [f"outboard: {why}"], refused
    quiet = login(active, "true")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert active.sh("systemctl start outboard@default").code == 0
    active.state("active")
    out, _ = shell.communicate(f"{MATRIX}\n", timeout=GUARD_S)
    assert PASS in out


def test_a_start_right_after_a_stop_is_heard(active: Guest) -> None:
    for _ in range(3):
        done = active.sh("systemctl stop outboard@default; systemctl start outboard@default")
        assert done.code == 0, done
        active.state("active")
        assert passes(login(active))


def test_other_users_may_not_stop_it_and_operators_may(active: Guest) -> None:
    active.sh("groupadd -f gpuadmins; usermod -aG gpuadmins user2")
    assert active.sh(f"{INSTALL} --operators gpuadmins").code == 0
    active.sh("systemctl restart polkit")
    stop = "systemctl --no-ask-password stop outboard@default"
    refused = login(active, stop)
    assert refused.code != 0, refused
    assert active.service()["state"] == "active"
    allowed = login(active, stop, "user2")
    assert allowed.code == 0, allowed
    assert login(active, "systemctl --no-ask-password start outboard@default", "user2").code == 0
    active.state("active")


def test_a_service_for_one_user_is_what_his_programs_use_beside_the_machines(
    active: Guest,
) -> None:
    assert active.sh(f"{INSTALL} --name team --for-user {USER}").code == 0
    loops = [active.start(["su", "-l", user, "-c", LOOP]) for user in (USER, "user2")]
    try:
        for loop in loops:
            assert loop.stdout is not None
            assert loop.stdout.readline().startswith("READY")
        services = active.json("outboard", "status", "--json")["services"]
        used = {one["name"]: [each["user"] for each in one["processes"]] for one in services}
        assert used == {"default": ["user2"], "team": [USER]}
    finally:
        active.sh("pkill -9 -x longLoop")
        for loop in loops:
            loop.communicate(timeout=GUARD_S)
    assert active.sh("outboard service uninstall --name team").code == 0


def test_what_no_retry_cures_is_not_tried_again(active: Guest) -> None:
    assert active.sh("outboard service install -m 1 --no-start").code == 0
    active.sh("systemctl stop outboard@default")
    assert active.sh("systemctl start outboard@default").code != 0
    shown = active.sh("systemctl show -p ExecMainStatus -p Result outboard@default").out
    assert "ExecMainStatus=78" in shown
    started = time.monotonic()
    assert "is not running" in login(active).err
    measured("a program is told that there is no service", time.monotonic() - started)
    shown = login(active, "outboard status").out
    assert "failed: -m 1 cannot hold a CUDA context" in shown, shown
    assert "when that is mended: systemctl start outboard@default" in shown
    assert active.sh(f"{INSTALL}").code == 0
    active.state("active")


def test_a_restart_that_comes_while_a_service_gives_up_keeps_its_socket(active: Guest) -> None:
    folder = "systemd/system/outboard@default.service.d"
    edit = f'sed -i "s/-m 1/-p 0.25/" /etc/{folder}/10-request.conf'
    cure = f"{edit}; systemctl daemon-reload; systemctl --no-block restart outboard@default"
    active.write(
        f"/run/{folder}/20-cure.conf",
        "[Service]\nExecStopPost=\n"
        f"ExecStopPost=+/bin/sh -c '[ \"$EXIT_STATUS\" != 78 ] || {{ {cure}; }}'\n"
        "ExecStopPost=+/usr/bin/outboard service ended --system --name default\n",
    )
    # A restart would take over the session that there is, and find out later.
    active.sh("systemctl stop outboard@default; outboard service install -m 1 --no-start")
    active.sh("systemctl start outboard@default")
    active.state("active")
    assert "Traceback" not in active.sh("journalctl -b --no-pager -u outboard@default").out
    active.sh(f"rm -r /run/{folder}; systemctl daemon-reload")
    assert active.sh(INSTALL).code == 0


def test_an_idle_service_stands_by_and_wakes_for_a_program(active: Guest) -> None:
    assert active.sh(f"{INSTALL} --idle 1s").code == 0
    active.sh("systemctl restart outboard@default")
    shell = active.start(["su", "-l", USER])
    active.state("standby")
    assert active.sessions() == []
    assert active.sh("systemctl is-active outboard@default").out == "active\n"
    started = time.monotonic()
    done = login(active)
    measured("from standby to a right answer", time.monotonic() - started)
    assert passes(done), done
    active.state("standby")
    out, _ = shell.communicate(f"{MATRIX}\n", timeout=GUARD_S)
    assert PASS in out
    assert active.sh(f"{INSTALL}; systemctl restart outboard@default").code == 0
    active.state("active")


def test_an_edited_unit_is_in_force_after_a_reload(active: Guest) -> None:
    conf = "/etc/systemd/system/outboard@default.service.d/10-request.conf"
    active.sh(f"sed -i 's/-p 0.25/-p 0.5/' {conf}; systemctl daemon-reload")
    assert active.sh("systemctl reload outboard@default").code == 0

    def share() -> int:
        devices = active.service()["devices"]
        return int(devices[0]["share_bytes"]) >> 20 if devices else 0

    eventually("half of the GPU", lambda: share() > 2000)


def test_a_unit_that_needs_gpus_waits_for_them(active: Guest) -> None:
    unit = (
        "[Unit]\\nWants=outboard-ready@default.service\\n"
        "After=outboard-ready@default.service multi-user.target\\n"
        f"[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart={MATRIX}\\n"
        "[Install]\\nWantedBy=multi-user.target\\n"
    )
    active.sh(f"printf '{unit}' > /etc/systemd/system/job.service; systemctl enable job")
    active.power_off()
    active.boot()
    eventually("the job is done", lambda: active.sh("systemctl is-active job").out == "active\n")
    assert "cycle" not in active.sh("journalctl -b --no-pager").out
    active.sh("systemctl disable --now job; rm /etc/systemd/system/job.service")


def test_the_unit_of_the_predecessor_is_imported(active: Guest) -> None:
    unit = "/tmp/bitfusion-client.service"
    active.write(
        unit, "[Service]\nExecStart=/usr/bin/bitfusion run -n 1 -p 0.5 -- /opt/capture.sh\n"
    )
    done = active.sh(f"outboard service import {unit}")
    assert done.code == 0, done
    assert "outboard service install -n 1 -p 0.5" in done.out
    active.state("active")
    assert passes(login(active))


def test_a_user_without_root_has_a_service_of_his_own(guest: Guest) -> None:
    assert guest.sh("outboard service uninstall").code == 0
    guest.sh(f"loginctl enable-linger {USER}")
    uid = guest.sh(f"id -u {USER}").out.strip()
    eventually("his manager runs", lambda: guest.sh(f"test -d /run/user/{uid}/systemd").code == 0)
    # The pool of this test answers its owner alone: what is his own is a pool of this user.
    environment = f"XDG_RUNTIME_DIR=/run/user/{uid} OUTBOARD_POOL="
    guest.sh("mv /etc/outboard/config.toml /etc/outboard/config.off")
    done = login(guest, f"{environment} outboard service install --user -n 1 -p 0.25")
    assert done.code == 0, done
    eventually("a login shell computes", lambda: passes(login(guest)))
    # Nothing of the machine has the libraries: what finds them here is what his own files say.
    desktop = f"systemd-run --quiet --wait --pipe -p PAMName=desktop -p User={USER}"
    done = guest.sh(f"{desktop} sh {PROGRAMS}/desktop.sh {MATRIX}")
    assert done.out.count(PASS) == 2, done
    origin = guest.json("su", "-l", USER, "-c", "outboard service env --diff --json")
    assert origin["LD_LIBRARY_PATH"]["here"]
    assert f"/home/{USER}/.profile" in origin["LD_LIBRARY_PATH"]["files"]
    assert not passes(login(guest, user="user2"))
    done = login(guest, f"{environment} outboard service uninstall --user")
    assert done.code == 0, done
    assert not passes(login(guest))
    guest.sh("mv /etc/outboard/config.off /etc/outboard/config.toml")
    guest.sh(f"loginctl disable-linger {USER}")


def test_removing_the_package_leaves_nothing(guest: Guest) -> None:
    assert guest.sh(INSTALL).code == 0
    done = guest.sh("dpkg -r outboard")
    assert done.code == 0, done
    left = guest.sh("grep -rl outboard /etc /usr/lib/systemd /run --include=* 2>/dev/null").out
    unexpected = [
        path
        for path in left.split()
        if not path.startswith(("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"))
        and path not in ("/etc/outboard/config.toml", "/etc/systemd/system/testpool.service")
        and "wants" not in path
        and not path.startswith(("/run/testpool", "/run/systemd", "/run/log", "/run/user"))
    ]
    assert unexpected == []
    assert "libcuda.so.1" not in guest.sh("ldconfig -p").out


@pytest.mark.parametrize("boot", range(int(os.environ.get("OUTBOARD_TEST_BOOTS", "3"))))
def test_boots_in_a_row(guest: Guest, boot: int) -> None:
    if boot == 0:
        assert guest.call(["dpkg", "-i", "/var/outboard.deb"]).code == 0
        guest.sh("systemctl enable --now testpool")
        assert guest.sh(INSTALL).code == 0
    guest.power_cut()
    started = time.monotonic()
    guest.boot()
    eventually("a login shell computes", lambda: passes(login(guest)))
    measured(f"boot {boot + 1}: power-on to the first right answer", time.monotonic() - started)
