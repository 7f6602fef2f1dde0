"""Installs and removes a service: units, the shims as a driver is, the hooks of shells.

SPDX-License-Identifier: Apache-2.0

What is written here names stable files alone and stays until `service uninstall`. Every file of
ours says so where it begins; files of others get a block between two marks.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field

from outboard.errors import ConfigurationError
from outboard.native import NativeFiles
from outboard.service.containers import CDI_FILE, cdi
from outboard.service.environment import Gain, as_environment_d, as_fish, as_shell, gains
from outboard.service.folders import DEFAULT_NAME, ServiceFolders
from outboard.service.installed import SYSTEM_UNITS, drop_in_folder, user_units
from outboard.service.options import ServiceOptions
from outboard.service.unit_text import drop_in, load_template, operators_rule, socket_drop_in

LOADER_FILE = "/etc/ld.so.conf.d/outboard.conf"
PROFILE_FILE = "/etc/profile.d/outboard.sh"
FISH_FILE = "/etc/fish/conf.d/outboard.fish"
ENVIRONMENT_FILE = "/etc/environment.d/60-outboard.conf"
ZSH_FILE = "/etc/zsh/zprofile"
PACKAGED_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system")
_MARK = "Written by `outboard service install`; removed by `outboard service uninstall`."
_BEGIN, _END = "# >>> outboard service >>>", "# <<< outboard service <<<"


@dataclass(slots=True)
class Plan:
    """What an installation writes: whole files, and blocks in files that belong to others.

    `unwanted` are files of an earlier installation of the same service that would contradict it.
    """

    files: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    unwanted: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return sorted([*self.files, *self.blocks])


def plan(
    folders: ServiceFolders,
    options: ServiceOptions,
    words: list[str],
    native: NativeFiles,
    command: str,
    operators: str = "",
    *,
    software: bool = False,
) -> Plan:
    """Everything to write. `words` is the request as it will be visible in the unit; `software`
    says that the GPUs are known to be software."""
    made = Plan()
    units = SYSTEM_UNITS if folders.system else user_units()
    if units is None:
        raise ConfigurationError("HOME is not set", "set it, or install for the machine as root")
    _plan_units(made, folders, options, words, command, units)
    if folders.system:
        _plan_permissions(made, folders, options, operators)
    if folders.name == DEFAULT_NAME:
        found = gains(folders, native.shim_folder, software=software)
        if folders.system:
            made.files[LOADER_FILE] = f"# {_MARK}\n{native.shim_folder}\n"
            made.files[CDI_FILE] = f"# {_MARK}\n{cdi(folders, native.shim_folder, found)}"
            _plan_system_hooks(made, found)
        else:
            _plan_user_hooks(made, found)
    return made


def write(made: Plan) -> None:
    """Write the files, each in one step, and the blocks; take away what is not wanted any more."""
    for path in made.unwanted:
        if _MARK in _read(path):
            os.unlink(path)
    for path, text in made.files.items():
        _write_file(path, text)
    for path, text in made.blocks.items():
        before = _read(path)
        block = f"{_BEGIN}\n{text}{_END}\n"
        # In front: what follows in a .bashrc is often for interactive shells alone.
        _write_file(path, block + _without_block(before))


def remove(folders: ServiceFolders) -> list[str]:
    """Remove what an installation of this service wrote; returns the paths."""
    removed = []
    units = SYSTEM_UNITS if folders.system else user_units() or ""
    for unit in (f"outboard@{folders.name}.service", f"outboard@{folders.name}.socket"):
        folder = os.path.join(units, f"{unit}.d")
        if os.path.isdir(folder):
            shutil.rmtree(folder)
            removed.append(folder)
    candidates = [_rules_file(folders)] if folders.system else []
    if folders.name == DEFAULT_NAME:
        candidates += _system_hooks() if folders.system else _user_hooks()
    if not _others_installed(units):
        candidates += [os.path.join(units, name) for name in _templates(folders.system)]
    for path in candidates:
        if _MARK in _read(path):
            os.unlink(path)
            removed.append(path)
    for path in _block_files(folders) if folders.name == DEFAULT_NAME else ():
        text = _read(path)
        if _BEGIN in text:
            _write_file(path, _without_block(text))
            removed.append(path)
    return removed


def hooks(folders: ServiceFolders) -> dict[str, str]:
    """The files that give programs the variables of this service, and who reads each."""
    if folders.name != DEFAULT_NAME:
        return {}
    if folders.system:
        return {
            PROFILE_FILE: "login shells",
            ZSH_FILE: "zsh, logins",
            FISH_FILE: "fish",
            ENVIRONMENT_FILE: "user services, desktops",
        }
    fish, environment = _user_hooks()
    readers = {".profile": "login shells", ".bashrc": "bash, ssh HOST COMMAND", ".zshenv": "zsh"}
    shells = {path: readers.get(os.path.basename(path), "bash, logins") for path in _home_files()}
    return {**shells, fish: "fish", environment: "user services, desktops"}


def _plan_units(
    made: Plan,
    folders: ServiceFolders,
    options: ServiceOptions,
    words: list[str],
    command: str,
    units: str,
) -> None:
    packaged = folders.system and any(
        os.path.exists(os.path.join(folder, "outboard@.service")) for folder in PACKAGED_UNITS
    )
    for name in () if packaged else _templates(folders.system):
        text = load_template(folders.system, name, command)
        made.files[os.path.join(units, name)] = f"# {_MARK}\n{text}"
    folder = drop_in_folder(units, folders.name)
    made.files[os.path.join(folder, "10-request.conf")] = f"# {_MARK}\n" + drop_in(
        folders, options, words, command
    )


def _plan_permissions(
    made: Plan, folders: ServiceFolders, options: ServiceOptions, operators: str
) -> None:
    """Who may use the socket, who may stop the service; what an earlier installation said of it is
    not to stay."""
    access = os.path.join(SYSTEM_UNITS, f"outboard@{folders.name}.socket.d", "10-access.conf")
    text = socket_drop_in(options)
    if text:
        made.files[access] = f"# {_MARK}\n{text}"
    rules = _rules_file(folders)
    if operators:
        made.files[rules] = f"// {_MARK}\n{operators_rule(operators, folders.name)}"
    made.unwanted = [path for path in (access, rules) if path not in made.files]


def _rules_file(folders: ServiceFolders) -> str:
    return f"/etc/polkit-1/rules.d/60-outboard-{folders.name}.rules"


def _plan_system_hooks(made: Plan, found: list[Gain]) -> None:
    made.files[PROFILE_FILE] = f"# {_MARK}\n{as_shell(found)}"
    made.files[FISH_FILE] = f"# {_MARK}\n{as_fish(found)}"
    made.files[ENVIRONMENT_FILE] = f"# {_MARK}\n{as_environment_d(found)}"
    if os.path.isdir("/etc/zsh"):
        made.blocks[ZSH_FILE] = as_shell(found)


def _plan_user_hooks(made: Plan, found: list[Gain]) -> None:
    fish, environment = _user_hooks()
    made.files[fish] = f"# {_MARK}\n{as_fish(found)}"
    made.files[environment] = f"# {_MARK}\n{as_environment_d(found)}"
    for path in _home_files():
        made.blocks[path] = as_shell(found)


def _system_hooks() -> list[str]:
    return [LOADER_FILE, CDI_FILE, PROFILE_FILE, FISH_FILE, ENVIRONMENT_FILE]


def _user_hooks() -> list[str]:
    home = os.path.expanduser("~")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return [
        os.path.join(base, "fish/conf.d/outboard.fish"),
        os.path.join(base, "environment.d/60-outboard.conf"),
    ]


def _home_files() -> list[str]:
    # ~/.profile: logins. ~/.bashrc: `ssh host command`. ~/.zshenv: every zsh.
    home = os.path.expanduser("~")
    names = [".profile", ".bashrc", ".zshenv"]
    if os.path.exists(os.path.join(home, ".bash_profile")):
        names.append(".bash_profile")  # then bash reads no .profile
    return [os.path.join(home, name) for name in names]


def _block_files(folders: ServiceFolders) -> list[str]:
    return [ZSH_FILE] if folders.system else _home_files()


def _templates(system: bool) -> list[str]:
    names = ["outboard@.service", "outboard@.socket"]
    return [*names, "outboard-ready@.service", "outboard-join.service"] if system else names


def _others_installed(units: str) -> bool:
    try:
        names = os.listdir(units)
    except OSError:
        return False
    return any(name.startswith("outboard@") and name.endswith(".service.d") for name in names)


def _without_block(text: str) -> str:
    start, end = text.find(_BEGIN), text.find(_END)
    if start < 0 or end < start:
        return text
    return text[:start] + text[end + len(_END) :].removeprefix("\n")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _write_file(path: str, text: str) -> None:
    """Put a file in place in one step; one that was there keeps its mode and owner."""
    temporary = f"{path}.outboard"
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        path = os.path.realpath(path)  # a .bashrc is often a link into a repository
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        if os.path.exists(path):
            shutil.copystat(path, temporary)
            before = os.stat(path)
            os.chown(temporary, before.st_uid, before.st_gid)
        else:
            os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}",
            "as root for the machine (sudo outboard service install), or --user for yourself",
        ) from error
