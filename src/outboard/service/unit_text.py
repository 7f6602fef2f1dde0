"""The text of units and of what completes them: request, access, who may start and stop.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import shlex

from outboard.service.folders import ServiceFolders
from outboard.service.options import ServiceOptions

_PLACEHOLDER = "@OUTBOARD@"


def load_template(system: bool, name: str, command: str) -> str:
    """A unit as systemd reads it; `command` is the absolute path of `outboard`."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")
    with open(os.path.join(folder, "system" if system else "user", name), encoding="utf-8") as file:
        return file.read().replace(_PLACEHOLDER, command)


def drop_in(
    folders: ServiceFolders, options: ServiceOptions, words: list[str], command: str
) -> str:
    """The request, where people see and edit it: `systemctl edit outboard@NAME`."""
    place = "--system" if folders.system else "--user"
    start = shlex.join([command, "service", "run", place, "--name", "%i", *words])
    lines = ["[Service]"]
    if options.for_user or options.group:
        publish = shlex.join([command, "service", "publish", place, "--name", "%i", *words])
        lines += ["ExecStartPre=", f"ExecStartPre=+{publish}"]
    return "\n".join([*lines, "ExecStart=", f"ExecStart={start}", ""])


def socket_drop_in(options: ServiceOptions) -> str:
    """Who may open the socket; empty where everybody may."""
    if options.for_user:
        return f"[Socket]\nSocketUser={options.for_user}\nSocketMode=0600\n"
    if options.group:
        return f"[Socket]\nSocketGroup={options.group}\nSocketMode=0660\n"
    return ""


def operators_rule(group: str, name: str) -> str:
    """A polkit rule: members of the group start, stop, restart and reload the service."""
    return f"""\
polkit.addRule(function(action, subject) {{
  if (action.id == "org.freedesktop.systemd1.manage-units" &&
      action.lookup("unit") == {json.dumps(f"outboard@{name}.service")} &&
      ["start", "stop", "restart", "reload"].indexOf(action.lookup("verb")) >= 0 &&
      subject.isInGroup({json.dumps(group)})) {{
    return polkit.Result.YES;
  }}
}});
"""


def request_words(exec_start: str) -> list[str]:
    """The options of `service run` in what `systemctl show --property=ExecStart` prints."""
    argv = exec_start.partition("argv[]=")[2].partition(" ; ")[0]
    words = shlex.split(argv)
    return words[words.index("run") + 1 :] if "run" in words else []
