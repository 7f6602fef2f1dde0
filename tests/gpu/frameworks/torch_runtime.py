"""PyTorch's runtime: memory, streams, graphs, processes, the compiler, the profiler.

SPDX-License-Identifier: Apache-2.0
"""

import gc
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import cases
import torch
import torch.multiprocessing as mp
from cases import case

DEVICE = "cuda"


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def child(code: str, **environment: str) -> str:
    """What another Python prints, with these variables set."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


class Rows(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((32,), float(index))


@case
def data_loader() -> Mapping[str, Any]:
    # Before anything else here: workers fork from a process that may have used CUDA.
    torch.zeros(1, device=DEVICE)
    loader = torch.utils.data.DataLoader(Rows(), batch_size=8, num_workers=2, pin_memory=True)
    total = torch.zeros(32, device=DEVICE)
    pinned = True
    for batch in loader:
        pinned = pinned and batch.is_pinned()
        total += batch.to(DEVICE, non_blocking=True).sum(0)
    return {"total": total, "pinned": pinned}


@case
def pinned_copies() -> Mapping[str, Any]:
    source = draw(1 << 20).pin_memory()
    device = source.to(DEVICE, non_blocking=True) * 2
    back = torch.empty(1 << 20, pin_memory=True)
    back.copy_(device, non_blocking=True)
    torch.cuda.synchronize()
    return {"back": back, "pinned": source.is_pinned(), "view": device[::3].cpu()}


@case
def side_streams() -> Mapping[str, Any]:
    a = draw(512, 512).to(DEVICE)
    streams = [torch.cuda.Stream(priority=-i) for i in range(3)]
    outputs = []
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            b = a
            for _ in range(20):
                b = torch.sin(b @ a / 512)
            outputs.append(b)
            b.record_stream(stream)
    for stream in streams:
        torch.cuda.current_stream().wait_stream(stream)
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    c = a @ a
    last.record()
    last.synchronize()
    return {"sum": sum(outputs), "c": c, "timed": first.elapsed_time(last) > 0}


@case
def memory_figures() -> Mapping[str, Any]:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    a = torch.empty(1 << 22, device=DEVICE)
    held = torch.cuda.memory_allocated() - before
    free, total = torch.cuda.mem_get_info()
    del a
    after = torch.cuda.memory_allocated() - before
    return {"held": held, "after": after, "fits": 0 < free < total}


@case
def out_of_memory() -> Mapping[str, Any]:
    try:
        torch.empty(1 << 40, device=DEVICE)
        refused = False
    except torch.cuda.OutOfMemoryError:
        refused = True
    return {"refused": refused, "after": (torch.ones(1000, device=DEVICE) * 3).sum()}


@case
def expandable_segments() -> Mapping[str, Any]:
    code = """
import torch
parts = [torch.full((1 << n,), float(n), device="cuda") for n in range(10, 25)]
del parts[::2]
more = [torch.full((3 << n,), 1.0, device="cuda") for n in range(10, 24)]
print(sum(t.double().sum().item() for t in parts + more))
try: torch.empty(1 << 40, device="cuda")
except torch.cuda.OutOfMemoryError: print("refused")
"""
    return {"said": child(code, PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True")}


@case
def asynchronous_allocator() -> Mapping[str, Any]:
    code = """
import torch
parts = [torch.full((1 << n,), float(n), device="cuda") for n in range(10, 25)]
del parts[::2]
more = [torch.full((3 << n,), 1.0, device="cuda") for n in range(10, 24)]
print(sum(t.double().sum().item() for t in parts + more))
"""
    return {"said": child(code, PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync")}


@case
def cuda_graph() -> Mapping[str, Any]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(128, 8)
    ).to(DEVICE)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, capturable=True)
    x = draw(32, 64).to(DEVICE)

    def step() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = model(x).square().mean()
        loss.backward()
        optimiser.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    losses = []
    for i in range(5):
        x.copy_(draw(32, 64 + i)[:, :64])
        graph.replay()
        losses.append(loss.item())
    return {"losses": losses, "weight": model[0].weight}


@case
def graphed_callables() -> Mapping[str, Any]:
    torch.manual_seed(4)
    model = torch.nn.Linear(32, 32).to(DEVICE)
    x = draw(16, 32).to(DEVICE).requires_grad_()
    graphed = torch.cuda.make_graphed_callables(model, (x,))
    y = graphed(x)
    y.sum().backward()
    return {"y": y, "dw": model.weight.grad}


@case
def compiled() -> Mapping[str, Any]:
    torch.manual_seed(7)
    model = torch.nn.Sequential(
        torch.nn.Linear(128, 256), torch.nn.GELU(), torch.nn.LayerNorm(256), torch.nn.Linear(256, 4)
    ).to(DEVICE)
    fast = torch.compile(model)
    x = draw(64, 128).to(DEVICE)
    y = fast(x)
    y.square().mean().backward()
    return {"y": y, "dw": model[0].weight.grad}


@case
def compiled_graphs() -> Mapping[str, Any]:
    torch.manual_seed(8)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).to(DEVICE)
    fast = torch.compile(model, mode="reduce-overhead")
    with torch.no_grad():
        for i in range(4):
            y = fast(draw(8, 64 + i)[:, :64].to(DEVICE)).clone()
    return {"y": y}


@case
def profiler() -> Mapping[str, Any]:
    from torch.profiler import ProfilerActivity, profile

    a = draw(256, 256).to(DEVICE)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        b = a @ a
        torch.cuda.synchronize()
    return {"b": b, "recorded": len(record.key_averages()) > 0}


def squares(rank: int, numbers: Any) -> None:
    numbers.put((rank, float((torch.arange(100, device=DEVICE) * rank).sum())))


@case
def spawned_processes() -> Mapping[str, Any]:
    context = mp.get_context("spawn")
    numbers = context.SimpleQueue()
    workers = [context.Process(target=squares, args=(rank, numbers)) for rank in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"numbers": sorted(numbers.get() for _ in workers)}


@case
def forked_processes() -> Mapping[str, Any]:
    # A fork before CUDA is used, as servers do it; one after it must be told so.
    code = """
import os, torch, torch.multiprocessing as mp
def work(q, r): q.put((r, float((torch.arange(100, device="cuda") * r).sum())))
context = mp.get_context("fork"); q = context.SimpleQueue()
children = [context.Process(target=work, args=(q, r)) for r in range(3)]
[c.start() for c in children]; [c.join() for c in children]
print(sorted(q.get() for c in children))
torch.ones(1, device="cuda")
pid = os.fork()
if pid == 0:
    try: torch.ones(1, device="cuda")
    except RuntimeError as error: os._exit(7 if "forked subprocess" in str(error) else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), float(torch.ones(4, device="cuda").sum()))
"""
    return {"said": child(code)}


@case
def exit_with_queued_work() -> Mapping[str, Any]:
    code = """
import torch
a = torch.randn(4096, 4096, device="cuda")
for _ in range(50): a = a @ a / 64
print("done", flush=True)
"""
    return {"said": child(code)}


@case
def threads() -> Mapping[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    def work(i: int) -> float:
        with torch.cuda.stream(torch.cuda.Stream()):
            a = torch.full((1000,), float(i), device=DEVICE)
            for _ in range(50):
                a = a * 1.01
            return float(a.double().sum())

    with ThreadPoolExecutor(8) as pool:
        return {"sums": list(pool.map(work, range(32)))}


if __name__ == "__main__":
    cases.main()
