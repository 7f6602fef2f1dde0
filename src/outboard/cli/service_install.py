"""`outboard service install`, `uninstall`, `env`: what stays on the machine, what shells gain.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

from outboard.cli.parser import Parser, print_json, print_table
from outboard.cli.service_options import (
    add_place,
    add_request,
    folders_of,
    options_of,
    request_of,
)
from outboard.errors import ConfigurationError, OutboardError, ServiceError
from outboard.native import find_native_files
from outboard.service.client import ask
from outboard.service.containers import cdi, flags
from outboard.service.environment import as_fish, as_shell, gains
from outboard.service.folders import ServiceFolders
from outboard.service.install import LOADER_FILE, Plan, hooks, plan, remove, write
from outboard.service.installed import known_services
from outboard.service.loader import refresh, refuse_local_driver
from outboard.service.origin import Origin, origins

_INSTALL_EXAMPLES = """\
  sudo outboard service install -n 1 -p 0.5      every user of this machine has half a GPU
  sudo outboard service install --for-user ada   one user has one, from boot on
  sudo outboard service install --group ml --idle 30m --operators ml-admins
  outboard service install --user                this user, without root
"""
_START_TIMEOUT_S = 120.0


def install(words: list[str]) -> int:
    """Write units, loader configuration and hooks; enable and start the service."""
    parser = Parser("service install", "Hold GPUs from boot on.", _INSTALL_EXAMPLES)
    add_place(parser)
    add_request(parser)
    parser.add_argument(
        "--operators", default="", metavar="GROUP", help="this group may start and stop it"
    )
    parser.add_argument(
        "--replace-local-driver", action="store_true", help="also beside a driver of this machine"
    )
    parser.add_argument("--no-start", action="store_true", help="only write and enable")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    options = parser.parse_args(words)
    folders, request = folders_of(options), options_of(options)
    native = find_native_files()
    native.require_shim()
    if folders.system and not options.replace_local_driver:
        refuse_local_driver(native.shim_folder)

    def planned(*, software: bool) -> Plan:
        words, command = request_of(options), outboard_command()
        return plan(folders, request, words, native, command, options.operators, software=software)

    known = _has_software(folders)
    made = planned(software=known)
    if options.dry_run:
        for path in made.paths:
            print(path)
        return 0
    if folders.system:
        _require_root("install")
    _require_systemd(folders)
    if folders.system:
        _make_account()
        os.umask(0o022)  # everybody's programs look into what is written
    write(made)
    if LOADER_FILE in made.files:
        refresh()
    _systemctl(folders, "daemon-reload")
    _systemctl(folders, "enable", folders.unit)
    if not options.no_start:
        # One that runs already takes its GPUs along, and programs that use them notice nothing.
        _systemctl(folders, "restart", folders.unit)
    if not known and _has_software(folders):
        write(planned(software=True))  # what only the GPUs that came could tell
    for path in made.paths:
        print(path)
    if not folders.system:
        print("to have it from boot on, before you log in: loginctl enable-linger")
    print("see what it holds: outboard status")
    return 0


def import_(words: list[str]) -> int:
    """Install what the predecessor's unit asked for."""
    parser = Parser(
        "service import",
        "Read the predecessor's unit and install a service that does the same.",
        "  sudo outboard service import /etc/systemd/system/bitfusion-client.service\n"
        "  outboard service import --dry-run bitfusion-client.service\n",
    )
    parser.add_argument("unit", help="the unit's file")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_args(words)
    from outboard.service.predecessor import import_unit, note_script

    made = import_unit(_text_of(options.unit))
    if made.script and os.path.exists(made.script):
        note_script(_text_of(made.script), made)
    print(f"outboard service install {shlex.join(made.words)}")
    for change in made.changes:
        print(f"  {change}")
    unit = os.path.basename(options.unit)
    print(f"  {unit}: disable it: systemctl disable --now {unit}")
    return 0 if options.dry_run else install(["--system", *made.words])


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", "check its name") from error


def uninstall(words: list[str]) -> int:
    """Stop the service and take away what `install` wrote."""
    parser = Parser(
        "service uninstall", "Undo `service install`.", "  sudo outboard service uninstall\n"
    )
    add_place(parser)
    options = parser.parse_args(words)
    folders = folders_of(options)
    if folders.system:
        _require_root("uninstall")
    _systemctl(folders, "disable", "--now", folders.unit, quiet=True)
    removed = remove(folders)
    if LOADER_FILE in removed:
        refresh()
    _systemctl(folders, "daemon-reload")
    for path in removed:
        print(path)
    if not removed:
        print(f"no service {folders.name} is installed here")
    return 0


def env(words: list[str]) -> int:
    """Print what a shell of the service's users gains."""
    parser = Parser(
        "service env",
        "What a shell gains: as shell code, as a table with sources, or for a container.",
        '  eval "$(outboard service env)"\n'
        "  outboard service env --diff\n"
        "  outboard service env --diff --json | jq '.LD_LIBRARY_PATH.files'\n"
        "  podman run --device outboard/gpu=all IMAGE\n"
        "  docker run $(outboard service env --docker) IMAGE\n",
    )
    add_place(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--diff", action="store_true", help="what differs here, and which file sets it"
    )
    form.add_argument("--docker", action="store_true", help="flags for docker or podman run")
    form.add_argument("--cdi", action="store_true", help="a CDI file, as in /etc/cdi")
    form.add_argument("--fish", action="store_true", help="for fish")
    parser.add_argument("--json", action="store_true", help="for programs, also with --diff")
    options = parser.parse_args(words)
    folders, native = folders_of(options), find_native_files()
    if not options.system and not options.user:
        # What this user's programs use: his own service, or else the machine's.
        found_here = (one for one in known_services() if one.name == folders.name)
        folders = next(found_here, folders)
    software = _has_software(folders)
    found = gains(folders, native.shim_folder, software=software)
    if options.docker:
        print(" ".join(flags(folders, native.shim_folder, found)))
    elif options.cdi:
        sys.stdout.write(cdi(folders, native.shim_folder, found))
    elif options.diff:
        made = origins(found, os.environ, hooks(folders))
        if options.json:
            print_json({origin.name: origin.record() for origin in made})
        else:
            _print_diff(folders, native.shim_folder, made)
    elif options.json:
        print_json({gain.name: {"value": gain.value, "prepends": gain.prepends} for gain in found})
    else:
        sys.stdout.write(as_fish(found) if options.fish else as_shell(found))
    return 0


def _has_software(folders: ServiceFolders) -> bool:
    """Whether the service that runs has software GPUs; one that does not run has not."""
    try:
        status = ask(folders, "status")["status"]
    except OutboardError:
        return False
    return isinstance(status, dict) and bool(status.get("software"))


def _print_diff(folders: ServiceFolders, shim_folder: str, made: list[Origin]) -> None:
    rows = []
    for origin in made:
        value = f"{origin.value}:…" if origin.prepends else origin.value
        here = "yes" if origin.here else f"no: {origin.now}" if origin.now is not None else "no"
        files = [f"{path} ({reader})" for path, reader in origin.files.items()]
        rows.append([origin.name, value or "-", here, files[0] if files else "no file: install"])
        rows += [["", "", "", file] for file in files[1:]]
    if folders.system:
        here = "yes" if os.path.exists(LOADER_FILE) else "no"
        rows.append(["(libraries)", shim_folder, here, f"{LOADER_FILE} (all programs)"])
    here = "yes" if os.path.exists(folders.session_file) else "no"
    rows.append(["(session)", folders.session_file, here, f"{folders.unit} (while it runs)"])
    print_table(["VARIABLE", "VALUE", "HERE", "FROM"], rows)


def outboard_command() -> str:
    """The absolute path of `outboard` as units name it."""
    found = os.path.abspath(sys.argv[0])
    if os.path.basename(found) != "outboard":
        found = shutil.which("outboard") or ""
    if not found:
        raise ConfigurationError(
            "the command outboard is on no path", "install the package, or extend PATH"
        )
    return found


def _require_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise ConfigurationError(
            "the machine's service is root's to change",
            f"sudo outboard service {verb}, or --user for yourself",
        )


def _require_systemd(folders: ServiceFolders) -> None:
    """Before anything is changed: what is to run the unit is there."""
    try:
        _systemctl(folders, "show", "--property=Version")
    except ServiceError as error:
        raise ServiceError(
            f"systemd cannot be asked here: {error.message.splitlines()[0]}",
            "where it does not run: outboard service run, in the foreground",
        ) from error


def _make_account() -> None:
    """The account that the daemon runs as; the package has made it already."""
    import pwd

    try:
        pwd.getpwnam("outboard")
    except KeyError:
        subprocess.run(
            ["systemd-sysusers", "-"],
            input='u outboard - "GPUs from the pool"\n',
            text=True,
            check=False,
            timeout=_START_TIMEOUT_S,
        )


def _systemctl(folders: ServiceFolders, *words: str, quiet: bool = False) -> None:
    manager = [] if folders.system else ["--user"]
    try:
        done = subprocess.run(
            ["systemctl", "--quiet", *manager, *words],
            capture_output=True,
            text=True,
            timeout=_START_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(
            f"systemctl {' '.join(words)} failed: {error}", "is systemd this machine's init?"
        ) from error
    if done.returncode and not quiet:
        raise ServiceError(
            f"systemctl {' '.join(words)} failed: {done.stderr.strip()}",
            f"see why: journalctl {'' if folders.system else '--user '}-u {folders.unit}",
        )
