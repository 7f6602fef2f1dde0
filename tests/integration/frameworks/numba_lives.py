"""How Python programs fork, thread and end while they use CUDA, by Numba.

SPDX-License-Identifier: Apache-2.0

`python numba_lives.py CASE` prints what it found; the exit code is the case's own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import warnings

import numpy as np
from numba import cuda
from numba.core.errors import NumbaPerformanceWarning

COUNT = 4096

warnings.simplefilter("ignore", NumbaPerformanceWarning)


@cuda.jit
def step(values, rounds):
    i = cuda.grid(1)
    if i < values.size:
        for _ in range(rounds):
            values[i] = values[i] * 3 + 1


def total(start: int) -> int:
    values = cuda.to_device(np.arange(start, start + COUNT, dtype=np.int64))
    step[COUNT // 128, 128](values, 1)
    return int(values.copy_to_host().sum())


def expected(start: int) -> int:
    return sum(3 * value + 1 for value in range(start, start + COUNT))


def child(start: int, answers: multiprocessing.queues.Queue[int]) -> None:
    answers.put(total(start))


def forked_before_cuda() -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=child, args=(10 * k, answers)) for k in range(2)]
    for process in children:
        process.start()
    found = sorted(answers.get() for _ in children)
    for process in children:
        process.join()
    assert found == [expected(0), expected(10)]
    assert total(5) == expected(5)
    print("children:", found, [process.exitcode for process in children])


def forked_after_cuda() -> None:
    """The child uses no CUDA, and ends with all that the interpreter does then."""
    assert total(1) == expected(1)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        print("in the child:", int(np.arange(8).sum()))
        sys.exit(6)
    _, status = os.waitpid(pid, 0)
    print("the child's exit code:", os.waitstatus_to_exitcode(status))
    assert total(2) == expected(2)


def many_threads() -> None:
    assert total(0) == expected(0)
    found = {}

    def work(number: int) -> None:
        stream = cuda.stream()
        values = cuda.to_device(np.full(COUNT, number, dtype=np.int64), stream=stream)
        for _ in range(5):
            step[COUNT // 128, 128, stream](values, 1)
        stream.synchronize()
        found[number] = set(values.copy_to_host().tolist())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: {k * 243 + 121} for k in range(8)}, found
    print("threads:", len(found))


def ends_with_work_queued() -> None:
    values = cuda.to_device(np.zeros(COUNT, dtype=np.int64))
    for _ in range(200):
        step[COUNT // 128, 128](values, 20)
    print("queued")


CASES = {
    case.__name__: case
    for case in (forked_before_cuda, forked_after_cuda, many_threads, ends_with_work_queued)
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()
