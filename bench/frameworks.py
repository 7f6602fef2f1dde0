"""PyTorch on a real GPU, natively and through Outboard, in turn: what a step takes once it is warm.

SPDX-License-Identifier: Apache-2.0

`python3 -m bench.frameworks [--pairs 3] [--only small] [--json FILE]` on a machine with an NVIDIA
GPU, PyTorch, torchvision and transformers, after `make build`; with OUTBOARD_SHARED_MEMORY=0 as if
the server were another machine. Prints for each kind of step the native time and
the median of the pairs' ratios (Outboard / native) with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.statistics import estimate

ROOT = Path(__file__).resolve().parents[1]


def seconds(step: Callable[[], Any], count: int, rounds: int = 5) -> float:
    """The best round's seconds for one step; the first round warms up."""
    import torch

    best = float("inf")
    for warm in range(rounds + 1):
        torch.cuda.synchronize()
        begin = perf_counter()
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        if warm:
            best = min(best, (perf_counter() - begin) / count)
    return best


def small_operations() -> dict[str, float]:
    import torch

    a = torch.zeros(256, device="cuda")
    pinned = torch.zeros(16 << 20, pin_memory=True)
    plain = torch.zeros(16 << 20)
    large = torch.zeros(16 << 20, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(100):
            a.add_(1)
    return {
        "small kernel": seconds(lambda: a.add_(1), 5000),
        "reduce and read (.item())": seconds(lambda: a.sum().item(), 300),
        "graph of 100 kernels": seconds(graph.replay, 200),
        "64 MiB of pinned memory": seconds(lambda: large.copy_(pinned, non_blocking=True), 5),
        "64 MiB to pinned memory": seconds(lambda: pinned.copy_(large, non_blocking=True), 5),
        "64 MiB of plain memory": seconds(lambda: large.copy_(plain), 5),
        "64 MiB to plain memory": seconds(lambda: plain.copy_(large), 5),
    }


def training(model: Any, forward: Callable[[Any], Any]) -> Callable[[], None]:
    import torch

    model = model.cuda()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = forward(model)
        loss.backward()
        optimiser.step()

    return step


def models() -> dict[str, float]:
    import torch
    import torchvision
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    x = torch.randn(32, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    target = torch.arange(32, device="cuda")
    resnet = torchvision.models.resnet50().to(memory_format=torch.channels_last)
    words = torch.randint(50257, (4, 256), device="cuda")
    gpt2 = GPT2LMHeadModel(GPT2Config())
    shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8}
    llama = LlamaForCausalLM(LlamaConfig(num_attention_heads=16, vocab_size=32000, **shape))
    llama = llama.cuda().half().eval()
    prompt = torch.randint(32000, (1, 32), device="cuda")

    def decode() -> None:
        llama.generate(prompt, max_new_tokens=32, min_new_tokens=32, do_sample=False)

    loss = torch.nn.functional.cross_entropy
    return {
        "ResNet-50 training step": seconds(training(resnet, lambda m: loss(m(x), target)), 5, 3),
        "GPT-2 training step": seconds(
            training(gpt2, lambda m: m(input_ids=words, labels=words).loss), 5, 3
        ),
        "Llama, 32 tokens": seconds(decode, 1, 3),
    }


KINDS = {"small": small_operations, "models": models}


def measure(environment: dict[str, str], kinds: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.frameworks", "--child", *kinds],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"bench: a run ended with {done.returncode}: {done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=KINDS, help="one kind of step")
    parser.add_argument("--child", nargs="+", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({k: v for kind in options.child for k, v in KINDS[kind]().items()}))
        return 0
    if "OUTBOARD_SESSION" not in os.environ:  # all remote programs join one session
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = ":".join(filter(None, paths))
        module = [sys.executable, "-m", "outboard", "run", "-q", "-n", "1", "--"]
        return subprocess.call([*module, sys.executable, "-m", "bench.frameworks", *sys.argv[1:]])
    remote = dict(os.environ)
    native = {k: v for k, v in remote.items() if not k.startswith("OUTBOARD_")}
    native["LD_LIBRARY_PATH"] = ":".join(remote["LD_LIBRARY_PATH"].split(":")[1:])
    native.pop("TRITON_LIBCUDA_PATH", None)
    kinds = [options.only] if options.only else list(KINDS)
    pairs = [(measure(native, kinds), measure(remote, kinds)) for _ in range(options.pairs)]
    for name in pairs[0][0]:
        ratio = estimate([there[name] / here[name] for here, there in pairs])
        usual = estimate([here[name] for here, _ in pairs]).median
        print(f"{name:28} native {usual * 1e6:10.1f} us   outboard/native {ratio}")
    if options.json:
        options.json.write_text(json.dumps(pairs, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
