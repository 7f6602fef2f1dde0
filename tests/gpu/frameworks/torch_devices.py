"""PyTorch on two devices: copies between them, replicas, and ranks that talk through NCCL.

SPDX-License-Identifier: Apache-2.0
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import cases
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import case

RANKS = 2


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def small_model() -> torch.nn.Module:
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Tanh(), torch.nn.Linear(128, 8))


@case
def copies() -> Mapping[str, Any]:
    near = draw(1024, 1024).to("cuda:0")
    far = near.to("cuda:1", non_blocking=True) * 2
    back = far.to("cuda:0")
    pinned = torch.empty(1024, 1024, pin_memory=True)
    pinned.copy_(far, non_blocking=True)
    torch.cuda.synchronize(1)
    return {"back": back, "pinned": pinned, "device": str(far.device)}


@case
def streams_of_two_devices() -> Mapping[str, Any]:
    first, second = (torch.cuda.Stream(device) for device in range(RANKS))
    x = draw(2048, 512).to("cuda:0")
    torch.cuda.synchronize(0)
    with torch.cuda.stream(first):
        for _ in range(20):
            x = x * 1.001 + 1
        done = first.record_event()
    with torch.cuda.stream(second):
        second.wait_event(done)
        y = x.to("cuda:1") + 1
    second.synchronize()
    return {"y": y}


@case
def one_thread_a_device() -> Mapping[str, Any]:
    """A replica on each device, gradients added on the first."""
    x, target = draw(32, 64).to("cuda:0"), draw(32, 8).to("cuda:0")
    model = small_model().to("cuda:0")
    replicas = [model, small_model().to("cuda:1")]
    pieces = zip(x.chunk(RANKS), target.chunk(RANKS), strict=True)
    outputs = torch.nn.parallel.parallel_apply(
        replicas, [piece.to(f"cuda:{k}") for k, piece in enumerate(x.chunk(RANKS))]
    )
    for k, (_, wanted) in enumerate(pieces):
        (outputs[k] - wanted.to(f"cuda:{k}")).square().mean().backward()
    return {
        f"gradient{n}": a.grad + b.grad.to("cuda:0")
        for n, (a, b) in enumerate(zip(*(r.parameters() for r in replicas), strict=True))
    }


def rank_of(rank: int, port: int, work: Callable[[int], dict[str, Any]], results: Any) -> None:
    torch.cuda.set_device(rank)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("nccl", init_method=address, rank=rank, world_size=RANKS)
    found = {f"{key}{rank}": cases.array(value) for key, value in work(rank).items()}
    results.put(found)
    dist.barrier()
    dist.destroy_process_group()


def on_every_rank(work: Callable[[int], dict[str, Any]]) -> Mapping[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    ranks = mp.spawn(rank_of, args=(port, work, results), nprocs=RANKS, join=False)
    found = results.get() | results.get()
    assert ranks is not None
    while not ranks.join():
        pass
    return dict(sorted(found.items()))


def talk(rank: int) -> dict[str, Any]:
    mine = draw(1 << 20).to(rank) * (rank + 1)
    total, parts = mine.clone(), torch.empty(RANKS << 20, device=rank)
    dist.all_reduce(total)
    dist.all_gather_into_tensor(parts, mine)
    piece = torch.empty(1 << 19, device=rank)
    dist.reduce_scatter_tensor(piece, mine)
    told = torch.full((1000,), float(rank), device=rank)
    dist.broadcast(told, 1)
    passed = torch.zeros(1000, device=rank)
    if rank == 0:
        dist.send(mine[:1000].contiguous(), 1)
    else:
        dist.recv(passed, 0)
    return {"total": total, "parts": parts, "piece": piece, "told": told, "passed": passed}


def train(rank: int) -> dict[str, Any]:
    model = torch.nn.parallel.DistributedDataParallel(small_model().to(rank), [rank])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    x, target = draw(32, 64).chunk(RANKS)[rank].to(rank), draw(32, 8).chunk(RANKS)[rank].to(rank)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses), "weights": next(model.parameters())}


@case
def collectives() -> Mapping[str, Any]:
    return on_every_rank(talk)


@case
def distributed_training() -> Mapping[str, Any]:
    return on_every_rank(train)


@case
def data_parallel() -> Mapping[str, Any]:
    """NCCL within one process."""
    model = torch.nn.DataParallel(small_model().to("cuda:0"), [0, 1])
    model(draw(32, 64).to("cuda:0")).square().mean().backward()
    return {f"gradient{n}": p.grad for n, p in enumerate(model.parameters())}


if __name__ == "__main__":
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    cases.main()
