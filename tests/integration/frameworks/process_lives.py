"""How Python programs begin, fork, thread and end while they use CUDA, by CuPy.

SPDX-License-Identifier: Apache-2.0

`python process_lives.py CASE` prints what it found; the exit code is the case's own.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cupy as cp
import numpy as np

COUNT = 4096
STEP = cp.RawKernel(
    r"""
extern "C" __global__ void step(int* values, int n, int rounds) {
  const int i = blockDim.x * blockIdx.x + threadIdx.x;
  if (i >= n) return;
  int value = values[i];
  for (int k = 0; k < rounds; ++k) value = value * 3 + 1;
  values[i] = value;
}
""",
    "step",
)


def stepped(start: int, rounds: int = 1) -> cp.ndarray:
    values = cp.arange(start, start + COUNT, dtype=cp.int32)
    STEP((COUNT // 128,), (128,), (values, np.int32(COUNT), np.int32(rounds)))
    return values


def total(start: int) -> int:
    return int(stepped(start).get().sum(dtype=np.int64))


def expected(start: int) -> int:
    return sum(3 * value + 1 for value in range(start, start + COUNT))


def check(start: int) -> None:
    assert total(start) == expected(start)


def child(start: int, answers: multiprocessing.queues.Queue[int]) -> None:
    answers.put(total(start))


def in_children(method: str) -> None:
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    children = [context.Process(target=child, args=(10 * k, answers)) for k in range(2)]
    for process in children:
        process.start()
    found = sorted(answers.get() for _ in children)
    for process in children:
        process.join()
    assert found == [expected(0), expected(10)]
    print("children:", found, [process.exitcode for process in children])
    check(5)


def borrower(memory: bytes, ready: bytes, answers: multiprocessing.queues.Queue[int]) -> None:
    runtime = cp.cuda.runtime
    address = runtime.ipcOpenMemHandle(memory)
    lent = cp.cuda.UnownedMemory(address, COUNT * 4, None)
    values = cp.ndarray((COUNT,), cp.int32, cp.cuda.MemoryPointer(lent, 0))
    runtime.streamWaitEvent(cp.cuda.get_current_stream().ptr, runtime.ipcOpenEventHandle(ready))
    STEP((COUNT // 128,), (128,), (values, np.int32(COUNT), np.int32(1)))
    answers.put(int(values.sum()))
    runtime.ipcCloseMemHandle(address)


def arrays_in_two_processes() -> None:
    """By the runtime's functions, as frameworks send their tensors."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    values = stepped(0)
    ready = cp.cuda.Event(disable_timing=True, interprocess=True)
    ready.record()
    memory = cp.cuda.runtime.ipcGetMemHandle(values.data.mem.ptr)
    event = cp.cuda.runtime.ipcGetEventHandle(ready.ptr)
    process = context.Process(target=borrower, args=(memory, event, answers))
    process.start()
    found = answers.get()
    process.join()
    assert found == int(values.sum()) == 3 * expected(0) + COUNT
    print("shared:", found, process.exitcode)


def forked_before_cuda() -> None:
    in_children("fork")


def spawned_after_cuda() -> None:
    check(1)
    in_children("spawn")


def load(number: int) -> int:
    return int(np.arange(number).sum())


def forked_loaders_beside_cuda() -> None:
    """As a data loader: workers forked from a process that uses CUDA, and which do not."""
    check(1)
    kept = stepped(2)  # the workers inherit it
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for round_ in range(3):
            print("loaded:", pool.map(load, range(8)))
            check(round_)
    assert int(kept.get()[0]) == 7


def forked_child_that_calls_cuda() -> None:
    kept = stepped(2)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            total(1)
        except cp.cuda.runtime.CUDARuntimeError as error:
            print("in the child:", error.status)
            sys.exit(3)  # with all that the interpreter does at its end
        sys.exit(4)
    _, status = os.waitpid(pid, 0)
    print("the child's exit code:", os.waitstatus_to_exitcode(status))
    check(1)
    assert int(kept.get()[0]) == 7


def many_threads() -> None:
    def work(number: int) -> int:
        with cp.cuda.Stream(non_blocking=True) as stream:
            for k in range(10):
                values = stepped(number + k)
                stream.synchronize()
                assert int(values.get()[0]) == 3 * (number + k) + 1
        return number

    check(1)  # compiles, which NVRTC does on a program's first thread alone
    with ThreadPoolExecutor(8) as threads:
        print("threads:", sum(threads.map(work, range(16))))


def ends_with_work_queued() -> None:
    for k in range(300):
        stepped(k, 200)
    print("queued")


def ends_with_a_thread_in_a_call() -> None:
    check(1)
    begun: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work() -> None:
        while True:
            values = stepped(1, 1000)
            begun.put(None)
            cp.cuda.runtime.deviceSynchronize()
            values.get()

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(4):
        begun.get()
    print("leaving")
    sys.exit(7)


def calls_cuda_at_exit() -> None:
    values = stepped(3)
    atexit.register(lambda: print("at exit:", int(values.get().sum()), total(4)))
    print("main is done")


def ends_at_once_with_work_queued() -> None:
    for k in range(300):
        stepped(k, 200)
    print("leaving", flush=True)
    os._exit(5)


def ends_by_an_exception() -> None:
    stepped(1, 200)
    raise SystemExit("enough")


def waits_to_be_ended() -> None:
    # One block, so that much of it is never done in a test's time.
    values = cp.zeros(128, dtype=cp.int32)
    STEP((1,), (128,), (values, np.int32(128), np.int32(2_000_000_000)))
    print("WAITING", flush=True)
    cp.cuda.runtime.deviceSynchronize()


CASES = {
    case.__name__: case
    for case in (
        forked_before_cuda,
        spawned_after_cuda,
        arrays_in_two_processes,
        forked_loaders_beside_cuda,
        forked_child_that_calls_cuda,
        many_threads,
        ends_with_work_queued,
        ends_with_a_thread_in_a_call,
        calls_cuda_at_exit,
        ends_at_once_with_work_queued,
        ends_by_an_exception,
        waits_to_be_ended,
    )
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()
