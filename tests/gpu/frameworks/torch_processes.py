"""PyTorch's tensors between processes: sent by queues, worked on by both, held by one.

SPDX-License-Identifier: Apache-2.0
"""

import gc
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cases
import torch
import torch.multiprocessing as mp
from cases import case

DEVICE = "cuda"


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def share_and_hold(tensors: Any, done: Any, reply: Any) -> None:
    tensor, view = tensors.get()
    tensor.square_()
    view.add_(1000)
    torch.cuda.synchronize()
    done.put("squared")
    reply.get()  # the producer has looked, and let go of its tensor
    done.put(str(float(tensor.double().sum())))


def multiply(rank: int, work: Any, results: Any, release: Any) -> None:
    made = []
    while (task := work.get()) is not None:
        index, matrix = task
        made.append(matrix.double() * (index + 1))
        results.put((index, made[-1]))
        del task, matrix
    release.wait()  # who sends a tensor keeps it until it was received


def triple(tensors: Any, done: Any, back: Any) -> None:
    tensor = tensors.get()
    tensor.mul_(3)
    torch.cuda.synchronize()
    done.put("tripled")
    back.get()


@case
def shared_tensors() -> Mapping[str, Any]:
    context = mp.get_context("spawn")
    tensors, done, reply = (context.SimpleQueue() for _ in range(3))
    worker = context.Process(target=share_and_hold, args=(tensors, done, reply))
    worker.start()
    tensor = draw(512, 512).to(DEVICE)
    small = torch.arange(8.0, device=DEVICE)
    tensors.put((tensor, small[2:5]))
    said = done.get()
    seen, seen_small = tensor.cpu(), small.cpu()
    del tensor, small
    gc.collect()
    torch.ones(1 << 22, device=DEVICE)  # nothing of what the consumer holds is used again
    reply.put("freed")
    held = done.get()
    worker.join()
    return {"said": said, "seen": seen, "small": seen_small, "held": held, "exit": worker.exitcode}


@case
def returned_tensors() -> Mapping[str, Any]:
    """Several consumers, each of which sends what it made back to the producer."""
    context = mp.get_context("spawn")
    work, results = context.Queue(), context.Queue()
    releases = [context.Event() for _ in range(2)]
    workers = [
        context.Process(target=multiply, args=(rank, work, results, releases[rank]))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    matrices = [draw(64, 64).to(DEVICE) + rank for rank in range(4)]
    for index, matrix in enumerate(matrices):
        work.put((index, matrix))
    for _ in workers:
        work.put(None)
    products: dict[str, Any] = {}
    for _ in matrices:
        index, product = results.get()
        products[f"product{index}"] = product.clone().cpu()
        del product
    for release in releases:
        release.set()
    for worker in workers:
        worker.join()
    return products


@case
def shared_expandable_segments() -> Mapping[str, Any]:
    """Memory that PyTorch maps itself goes by descriptors."""
    code = """
import torch, torch.multiprocessing as mp
from torch_processes import triple
context = mp.get_context("spawn")
tensors, done, back = (context.SimpleQueue() for _ in range(3))
worker = context.Process(target=triple, args=(tensors, done, back))
worker.start()
tensor = torch.arange(1 << 20, device="cuda", dtype=torch.float32)
tensors.put(tensor)
print(done.get(), float(tensor.double().sum()))
back.put("seen")
worker.join()
print(worker.exitcode)
"""
    settings = {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "PYTHONPATH": str(Path(__file__).resolve().parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return {"said": done.stdout, "exit": done.returncode, "failed": "Error" in done.stderr}


if __name__ == "__main__":
    cases.main()
