"""A worker without a GPU: speaks the hand-over of docs/internals/session.md, then a line protocol.

SPDX-License-Identifier: Apache-2.0

On its command socket it writes `OUTW` and one line of JSON (what it was claimed with), then obeys
lines: `take N` (hold N bytes of device 0, answers ok or oom), `die` (exit 1), `ping`.
SOFTGPU_FAKE_* variables change how it starts: DEVICES, TOTAL_MIB, PROTOCOL, FAIL, MUTE, STUBBORN.
"""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import NoReturn

PROTOCOL = os.environ.get("SOFTGPU_FAKE_PROTOCOL", "ab" * 32)
CONTEXT_BYTES = 4 << 20


def inventory() -> None:
    total = int(os.environ.get("SOFTGPU_FAKE_TOTAL_MIB", "1028")) << 20
    devices = [
        {
            "index": index,
            "uuid": f"GPU-fake-{index}",
            "name": "Fake GPU",
            "total_bytes": total,
            "compute_capability": "8.0",
            "pci": f"0000:0{index + 1}:00.0",
            "multiprocessors": 8,
            "context_bytes": CONTEXT_BYTES,
        }
        for index in range(int(os.environ.get("SOFTGPU_FAKE_DEVICES", "1")))
    ]
    head = {"protocol": PROTOCOL, "driver_version": 13000, "software": True}
    print(json.dumps({**head, "devices": devices}))


class Page:
    """This worker's view of the share page."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self.descriptor = descriptor
        self.slot = slot
        self.calls = 0
        program = struct.pack("<4Q", time.time_ns() // 1000, 0, 4711, 1000)
        os.pwrite(descriptor, b"fake\0", self.record + 8 * 72)
        os.pwrite(descriptor, program, self.record)

    @property
    def record(self) -> int:
        return 65536 + 1024 * self.slot

    def call(self) -> None:
        """Counts one call of the program on device 0, and that it keeps the device busy so far."""
        self.calls += 1
        now_us = time.monotonic_ns() // 1000
        os.pwrite(self.descriptor, struct.pack("<Q", now_us), self.record + 8)
        os.pwrite(self.descriptor, struct.pack("<Q", self.calls), self.record + 8 * 8)
        os.pwrite(self.descriptor, struct.pack("<Q", 1000 * self.calls), self.record + 8 * 24)

    def field(self, at: int) -> int:
        return int(struct.unpack("<Q", os.pread(self.descriptor, 8, at))[0])

    def take(self, size: int) -> bool:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, 0)
        try:
            held = sum(self.field(256 + 8 * 16 * slot) for slot in range(256))
            if held + size > self.field(64):
                return False
            mine = 256 + 8 * 16 * self.slot
            os.pwrite(self.descriptor, struct.pack("<Q", self.field(mine) + size), mine)
            peak = struct.pack("<Q", self.field(mine))
            os.pwrite(self.descriptor, peak, self.record + 8 * 56)
            return True
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, 0)


def call_agent(path: str, identity: str) -> list[socket.socket]:
    """A control socket to the next agent, if one listens."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        control.connect(path)
        control.send(json.dumps({"type": "adopt", "id": identity}).encode())
    except OSError:
        control.close()
        return []
    return [control]


def serve(control: socket.socket, identity: str, agent_socket: str) -> NoReturn:
    control.send(json.dumps({"type": "ready", "protocol": PROTOCOL}).encode())
    data, descriptors, _, _ = socket.recv_fds(control, 32768, 4)
    if not data or json.loads(data)["type"] == "end":
        sys.exit(0)
    claim = json.loads(data)
    command = socket.socket(fileno=descriptors[0])
    page = Page(descriptors[1], claim["slot"])
    page.take(CONTEXT_BYTES)
    told = {"id": identity, "claim": claim, "environment": dict(os.environ)}
    told["descriptors"] = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    command.sendall(b"OUTW" + json.dumps(told).encode() + b"\n")
    joined: list[socket.socket] = []
    controls = [control]
    while True:
        if not controls and agent_socket:
            controls = call_agent(agent_socket, identity)
        readable, _, _ = select.select([command, *controls], [], [], 0.05)
        if controls and controls[0] in readable:
            try:
                data, descriptors, _, _ = socket.recv_fds(controls[0], 32768, 4)
            except ConnectionResetError:
                data = b""  # an agent that was killed before it had read the call
            if not data:
                controls = []  # the agent has gone: this one ends with its client
            elif (purpose := json.loads(data)["type"]) in ("bulk", "memory"):
                joined.append(socket.socket(fileno=descriptors[0]))
                joined[-1].sendall(f"{purpose} here\n".encode())
            elif "SOFTGPU_FAKE_STUBBORN" not in os.environ:
                command.sendall(f"ended: {json.loads(data)['reason']}\n".encode())
                sys.exit(0)
        if command in readable:
            obey(command, page)


def obey(command: socket.socket, page: Page) -> None:
    line = command.recv(4096)
    words = line.split()
    if not line:
        sys.exit(0)
    page.call()
    if words[0] == b"take":
        command.sendall(b"ok\n" if page.take(int(words[1])) else b"oom\n")
    elif words[0] == b"die":
        os._exit(1)
    else:
        command.sendall(b"pong\n")


def main() -> None:
    arguments = [word for word in sys.argv[1:] if word != "--unconfined"]
    if "SOFTGPU_FAKE_FAIL" in os.environ:
        sys.exit(f"the driver does not work: {os.environ['SOFTGPU_FAKE_FAIL']}")
    if "--inventory" in arguments:
        inventory()
        return
    if "SOFTGPU_FAKE_MUTE" in os.environ:
        time.sleep(600)
    if "SOFTGPU_FAKE_STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    control = socket.socket(fileno=int(options["--control-fd"]))
    serve(control, options["--id"], options.get("--agent-socket", ""))


if __name__ == "__main__":
    main()
