"""`outboard run` as users meet it, with fake workers behind it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from outboard.pki.authority import Authority
from tests.unit.conftest import Outboard, eventually


def _sessions(outboard: Outboard) -> list[dict[str, object]]:
    listed = json.loads(outboard("sessions", "--json").stdout)["sessions"]
    assert isinstance(listed, list)
    return listed


def test_a_program_gets_a_worker_with_the_share_that_it_asked_for(
    shared_outboard: Outboard,
) -> None:
    done = shared_outboard("run", "-n", "1", "-p", "0.25", "--", *shared_outboard.program, "ping")
    assert done.returncode == 0, done.stderr
    welcome, pong = done.stdout.splitlines()
    claim = json.loads(welcome.removeprefix("OUTW"))["claim"]
    assert claim["devices"] == [{"index": 0, "share_bytes": 256 << 20, "context_bytes": 4 << 20}]
    assert claim["slot"] == 0
    assert pong == "pong"
    assert done.stderr.splitlines()[0] == (
        "outboard: using this machine's pool: software GPU, for trying out"
    )
    assert "GPU 0: Fake GPU, 256 MiB of 1028 MiB, on this machine (127.0.0.1:" in done.stderr


def test_a_worker_inherits_nothing_of_its_user(outboard: Outboard) -> None:
    done = outboard("run", *outboard.program, SECRET="of the user", SOFTGPU_THREADS="2")
    told = json.loads(done.stdout.removeprefix("OUTW"))
    assert "SECRET" not in told["environment"]
    assert told["environment"]["SOFTGPU_THREADS"] == "2"
    # 0, 1, 2, the control socket, the command socket, the share page, the listing of /proc itself
    assert told["descriptors"] == [0, 1, 2, 3, 4, 5, 6]


def test_what_the_run_made_is_gone_after_it(outboard: Outboard) -> None:
    done = outboard(
        "run", "-n", "1", "sh", "-c", 'cat "$OUTBOARD_SESSION"; stat -c %a "$OUTBOARD_SESSION"'
    )
    session, mode = done.stdout.splitlines()
    assert json.loads(session)["form"] == "inline"
    assert mode == "600"
    assert outboard.session_files() == []
    assert _sessions(outboard) == []
    assert stat.S_IMODE((outboard.runtime / "pool.sock").stat().st_mode) == 0o600


def test_the_environment_makes_the_program_find_the_shim(shared_outboard: Outboard) -> None:
    done = shared_outboard(
        "run", "-q", "env", LD_LIBRARY_PATH="/elsewhere", CUDA_VISIBLE_DEVICES="3"
    )
    seen = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    shim = str(shared_outboard.native / "lib/shim")
    assert seen["LD_LIBRARY_PATH"] == f"{shim}:/elsewhere"
    assert seen["TRITON_LIBCUDA_PATH"] == shim
    assert seen["CUPY_COMPILE_WITH_PTX"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in seen
    assert done.stderr == ""


def test_dropping_cuda_visible_devices_is_said(shared_outboard: Outboard) -> None:
    done = shared_outboard("run", "true", CUDA_VISIBLE_DEVICES="3")
    assert "ignoring CUDA_VISIBLE_DEVICES=3" in done.stderr


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_programs(shared_outboard: Outboard, code: int) -> None:
    assert shared_outboard("run", "sh", "-c", f"exit {code}").returncode == code


def test_a_program_ended_by_a_signal_gives_128_and_its_number(shared_outboard: Outboard) -> None:
    assert shared_outboard("run", "sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_one_quoted_string_runs_through_the_shell(shared_outboard: Outboard) -> None:
    done = shared_outboard("run", "-n", "1", "echo one; exit 7")
    assert (done.stdout, done.returncode) == ("one\n", 7)


def test_options_behind_the_command_are_the_commands(shared_outboard: Outboard) -> None:
    done = shared_outboard("run", "-n", "1", "echo", "-n", "9", "--", "-p", "x")
    assert done.stdout == "9 -- -p x"


def test_a_session_inside_a_session_joins_it_unless_it_asks(shared_outboard: Outboard) -> None:
    inner = " ".join(shared_outboard.command("run", "sh", "-c", "'echo $OUTBOARD_SESSION'"))
    own = " ".join(
        shared_outboard.command("run", "-m", "100", "sh", "-c", "'echo $OUTBOARD_SESSION'")
    )
    done = shared_outboard(
        "run", "-p", "0.5", "sh", "-c", f"echo $OUTBOARD_SESSION; {inner}; {own}"
    )
    outer, joined, other = done.stdout.splitlines()
    assert joined == outer
    assert other != outer
    assert "outboard: using session s-" in done.stderr


def test_programs_of_one_session_share_one_share(outboard: Outboard) -> None:
    program = " ".join(outboard.program)
    first = f"{program} 'take 209715200' wait & pid=$!"
    script = (
        f"exec 3<>fifo; {first}; read line <&3; read line <&3;"
        f" {program} 'take 209715200'; kill $pid; wait $pid; {program} 'take 209715200'"
    )
    script = script.replace(
        f"{program} 'take 209715200' wait &", f"{program} 'take 209715200' wait >&3 &"
    )
    folder = outboard.runtime.parent
    os.mkfifo(folder / "fifo")
    done = outboard("run", "-m", "300", "sh", "-c", f"cd {folder}; {script}")
    answers = [line for line in done.stdout.splitlines() if not line.startswith("OUTW")]
    assert answers == ["oom", "ok"], done.stderr


def test_no_wait_on_a_busy_pool_is_125_and_wait_is_124(outboard: Outboard) -> None:
    holder = outboard.start("run", "sh", "-c", "echo there; read line")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "there\n"
    now = outboard("run", "--no-wait", "true")
    assert now.returncode == 125
    assert "outboard: the pool is busy: 0 of the 1 GPUs asked for are free" in now.stderr
    later = outboard("run", "--wait", "0.2s", "true")
    assert later.returncode == 124
    assert "no GPU within" in later.stderr
    holder.communicate("\n")


def test_a_waiting_run_gets_the_gpu_when_it_is_free(outboard: Outboard) -> None:
    holder = outboard.start("run", "sh", "-c", "echo there; read line")
    assert holder.stdout is not None
    holder.stdout.readline()
    waiting = outboard.start("run", "echo", "mine")
    assert waiting.stderr is not None
    assert "waiting" in waiting.stderr.readline()
    holder.communicate("\n")
    assert waiting.communicate()[0] == "mine\n"


def test_a_killed_launcher_with_a_program_keeps_the_session_until_that_ends(
    outboard: Outboard,
) -> None:
    launcher = outboard.start("run", *outboard.program, "wait")
    assert launcher.stdout is not None
    told = json.loads(launcher.stdout.readline().removeprefix("OUTW"))
    launcher.kill()
    launcher.wait()
    eventually(lambda: _sessions(outboard)[0]["held"] is False, "the launcher's end is noticed")
    assert _sessions(outboard)[0]["programs"] == 1
    # The program is nobody's child now; it is the one whose session file is in its environment.
    os.kill(_program_of(told["claim"]["session"]), signal.SIGKILL)
    eventually(lambda: _sessions(outboard) == [], "the session ends with its last program")
    assert outboard.session_files() == []
    assert outboard("run", "--no-wait", "true").returncode == 0
    launcher.communicate()


def test_a_killed_launcher_without_a_program_frees_the_gpu(outboard: Outboard) -> None:
    launcher = outboard.start("run", "sh", "-c", "echo there; exec sleep 60")
    assert launcher.stdout is not None
    launcher.stdout.readline()
    sleeper = _program_of(str(_sessions(outboard)[0]["id"]))
    launcher.kill()
    launcher.wait()
    eventually(lambda: _sessions(outboard) == [], "the session ends")
    os.kill(sleeper, signal.SIGKILL)
    launcher.communicate()


def test_a_dead_worker_ends_its_program_at_once(shared_outboard: Outboard) -> None:
    done = shared_outboard("run", *shared_outboard.program, "die", "ping")
    assert done.stdout.splitlines()[1:] in ([""], ["", ""])
    assert "ended: exit code 1" in shared_outboard.log()
    assert shared_outboard("run", "--no-wait", *shared_outboard.program, "ping").returncode == 0


def test_a_worker_that_will_not_end_is_killed(outboard: Outboard) -> None:
    folder = outboard.runtime.parent
    program = f"{' '.join(outboard.program)} wait > out 2> /dev/null &"
    script = f"cd {folder}; {program} while ! grep -q OUTW out; do sleep 0.05; done"
    done = outboard("run", "sh", "-c", script, SOFTGPU_FAKE_STUBBORN="1")
    assert done.returncode == 0
    assert _sessions(outboard) == []


def test_a_program_that_starts_late_finds_a_grant_that_holds(outboard: Outboard) -> None:
    script = 'cat "$OUTBOARD_SESSION"; sleep 2.5; cat "$OUTBOARD_SESSION"; exec "$@"'
    done = outboard(
        *("run", "sh", "-c", script, "sh", *outboard.program, "ping"), OUTBOARD_GRANT_LIFETIME="2s"
    )
    first, later, _, pong = done.stdout.splitlines()
    assert pong == "pong"
    assert json.loads(first)["session"] == json.loads(later)["session"]
    assert json.loads(first)["grant"] != json.loads(later)["grant"]


def test_a_grant_that_nobody_renewed_is_refused(outboard: Outboard) -> None:
    # Its launcher is stopped, as with a suspended machine: then the file is old for a moment.
    script = 'kill -STOP $PPID; sleep 3.5; "$@"; kill -CONT $PPID'
    done = outboard(
        *("run", "-q", "sh", "-c", script, "sh", *outboard.program), OUTBOARD_GRANT_LIFETIME="2s"
    )
    assert '"code": "expired"' in done.stdout, done.stderr


def test_a_session_file_whose_pool_has_gone_names_the_address(
    outboard: Outboard, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    path = tmp_path / "session.json"
    session = {
        "version": 1,
        "session": "s-00000000",
        "form": "inline",
        "nodes": [{"name": "gpu1", "address": f"127.0.0.1:{port}", "tls": "none"}],
        "grant": "x.y",
        "key": "0" * 64,
        "devices": [{"node": 0, "index": 0, "uuid": "GPU-1", "name": "GPU", "share_bytes": 1}],
    }
    path.write_text(json.dumps(session), encoding="utf-8")
    path.chmod(0o600)
    done = outboard("run", "true", OUTBOARD_SESSION=str(path))
    assert done.returncode == 125
    assert f"nobody answers at 127.0.0.1:{port} (gpu1)" in done.stderr
    assert "outboard run -n 1 -- COMMAND" in done.stderr


def test_a_configured_pool_that_does_not_answer_is_no_reason_for_another(
    outboard: Outboard, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    authority = Authority.create("a pool", dt.datetime.now(dt.UTC)).credential.certificate_pem
    (tmp_path / "authority.pem").write_bytes(authority)
    done = outboard(
        *("run", "true"),
        OUTBOARD_POOL=f"https://127.0.0.1:{port}",
        OUTBOARD_TOKEN="ob_00000000_" + "0" * 64 + "_" + "0" * 16,
        OUTBOARD_AUTHORITY=str(tmp_path / "authority.pem"),
    )
    assert done.returncode == 125
    assert f"the pool https://127.0.0.1:{port} (from OUTBOARD_POOL) does not answer" in done.stderr
    assert not (outboard.runtime / "pool.sock").exists()


def test_a_configured_socket_is_used(outboard: Outboard) -> None:
    outboard("gpus")
    url = f"unix:{outboard.runtime}/pool.sock"
    done = outboard("run", *outboard.program, OUTBOARD_POOL=url)
    assert done.returncode == 0
    assert "this machine's pool" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--frobnicate", "true"], 125, "unrecognized arguments: --frobnicate"),
        (["-n", "x", "true"], 125, "-n x: not a number of GPUs"),
        (["-n", "0", "true"], 125, "-n 0: at least one GPU"),
        (["-n", "2", "true"], 125, "-n 2: this pool has 1 GPU"),
        (["-n", "99", "true"], 125, "a session has at most 16 GPUs"),
        (["-p", "0", "true"], 125, "-p 0: outside of 0 to 1"),
        (["-p", "1.5", "true"], 125, "-p 1.5: outside of 0 to 1"),
        (["-p", "half", "true"], 125, "-p half: not a fraction"),
        (["-p", "0.5", "-m", "100", "true"], 125, "-p and -m exclude each other"),
        (["-m", "999999", "true"], 125, "the largest GPU of this pool has 1024 MiB to give"),
        (["-m", "5", "true"], 125, "cannot hold a CUDA context: at least 6 MiB are needed"),
        (["-p", "0.001", "true"], 125, "-p 0.001 is 1 MiB, which cannot hold a CUDA context"),
        (["--wait", "1m", "--no-wait", "true"], 125, "--wait and --no-wait exclude each other"),
        (["-n", "1"], 125, "which program?"),
        (["/nowhere/program"], 127, "/nowhere/program: no such file"),
        (["no-such-program"], 127, "no-such-program: command not found"),
        (["/etc/passwd"], 126, "/etc/passwd: permission denied"),
        (["/etc"], 126, "/etc: is a folder"),
    ],
)
def test_bad_input_is_refused_with_the_reason(
    shared_outboard: Outboard, words: list[str], code: int, said: str
) -> None:
    done = shared_outboard("run", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert all(line.startswith("outboard: ") for line in done.stderr.splitlines())
    assert _sessions(shared_outboard) == []


def test_native_files_that_are_missing_are_named(outboard: Outboard) -> None:
    (outboard.native / "lib/shim/libcuda.so.1").unlink()
    done = outboard("run", "true")
    assert done.returncode == 125
    assert "lib/shim/libcuda.so.1 does not exist" in done.stderr


def test_a_driver_that_does_not_work_says_why(outboard: Outboard) -> None:
    done = outboard("run", "true", SOFTGPU_FAKE_FAIL="on purpose")
    assert done.returncode == 125
    assert "the driver does not work: on purpose" in done.stderr


def test_without_a_home_nothing_fails(outboard: Outboard) -> None:
    del outboard.environment["HOME"], outboard.environment["XDG_STATE_HOME"]
    assert outboard("run", *outboard.program, "ping").returncode == 0


def _program_of(session: str) -> int:
    """The process, not the launcher, whose environment names the session."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and session.encode() in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no program of {session}")
