"""PyTorch's operations: eager, autograd, autocast, linear, convolution, attention, FFT, RNG.

SPDX-License-Identifier: Apache-2.0
"""

from collections.abc import Mapping
from typing import Any

import cases
import torch
import torch.nn.functional as F
from cases import case
from torch.nn.attention import SDPBackend, sdpa_kernel

torch.manual_seed(11)
DEVICE = torch.device("cuda")


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The same numbers in every run, drawn on the CPU."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


@case
def elementwise() -> Mapping[str, Any]:
    a, b = draw(1000, 1000), draw(1000, 1)
    return {"sum": (a * 2 + b).sum(0), "tanh": torch.tanh(a) / (b.abs() + 1), "any": (a > 3).any()}


@case
def reductions() -> Mapping[str, Any]:
    a = draw(333, 1001)
    return {
        "mean": a.mean(1),
        "var": a.var(0),
        "argmax": a.argmax(1),
        "cumsum": a.double().cumsum(1),
        "norm": a.norm(),
        "softmax": a.softmax(1),
    }


@case
def autograd() -> Mapping[str, Any]:
    w = draw(256, 128).requires_grad_()
    x = draw(64, 256)
    loss = (F.gelu(x @ w) ** 2).mean()
    loss.backward()
    return {"loss": loss, "gradient": w.grad}


def linear(dtype: torch.dtype) -> Mapping[str, Any]:
    x = draw(128, 512, dtype=dtype).requires_grad_()
    w = draw(1024, 512, dtype=dtype).requires_grad_()
    b = draw(1024, dtype=dtype)
    y = F.linear(x, w, b)
    y.float().square().mean().backward()
    return {"y": y, "dx": x.grad, "dw": w.grad}


@case
def linear_float() -> Mapping[str, Any]:
    return linear(torch.float32)


@case
def linear_half() -> Mapping[str, Any]:
    return linear(torch.float16)


@case
def linear_bfloat16() -> Mapping[str, Any]:
    return linear(torch.bfloat16)


@case
def linear_float8() -> Mapping[str, Any]:
    a = draw(256, 512).to(torch.float8_e4m3fn)
    b = draw(128, 512).to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=DEVICE)
    return {"y": torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)}


@case
def autocast() -> Mapping[str, Any]:
    x, w = draw(64, 256), draw(256, 256).requires_grad_()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        y = F.layer_norm(x @ w, (256,))
        loss = y.square().sum()
    loss.backward()
    return {"y": y, "dw": w.grad}


@case
def convolution() -> Mapping[str, Any]:
    results = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = draw(8, 16, 64, 64, dtype=dtype).requires_grad_()
        w = draw(32, 16, 3, 3, dtype=dtype).requires_grad_()
        y = F.conv2d(x, w, padding=1, stride=2)
        y.float().mean().backward()
        results |= {f"y {dtype}": y, f"dx {dtype}": x.grad, f"dw {dtype}": w.grad}
    results["conv3d"] = F.conv3d(draw(2, 4, 16, 16, 16), draw(8, 4, 3, 3, 3))
    results["transposed"] = F.conv_transpose2d(draw(2, 8, 16, 16), draw(8, 4, 4, 4), stride=2)
    return results


@case
def batch_norm_lstm() -> Mapping[str, Any]:
    torch.manual_seed(5)
    norm = torch.nn.BatchNorm2d(16).to(DEVICE)
    lstm = torch.nn.LSTM(32, 64, num_layers=2).to(DEVICE)
    y, _ = lstm(draw(20, 8, 32))
    y.sum().backward()
    gradient = lstm.weight_ih_l0.grad
    return {"norm": norm(draw(4, 16, 9, 9)), "lstm": y, "gradient": gradient}


def attention(backend: SDPBackend) -> Mapping[str, Any]:
    q, k, v = (draw(2, 8, 256, 64 + i, dtype=torch.bfloat16)[..., :64] for i in range(3))
    q, k, v = (t.contiguous().requires_grad_() for t in (q, k, v))
    with sdpa_kernel(backend):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y.float().square().sum().backward()
    return {"y": y, "dq": q.grad, "dk": k.grad, "dv": v.grad}


@case
def attention_math() -> Mapping[str, Any]:
    return attention(SDPBackend.MATH)


@case
def attention_flash() -> Mapping[str, Any]:
    return attention(SDPBackend.FLASH_ATTENTION)


@case
def attention_efficient() -> Mapping[str, Any]:
    return attention(SDPBackend.EFFICIENT_ATTENTION)


@case
def attention_cudnn() -> Mapping[str, Any]:
    return attention(SDPBackend.CUDNN_ATTENTION)


@case
def fft() -> Mapping[str, Any]:
    a = draw(64, 1000)
    return {
        "fft": torch.fft.fft(a),
        "rfft2": torch.fft.rfft2(draw(4, 96, 100)),
        "back": torch.fft.irfft(torch.fft.rfft(a)),
    }


@case
def linalg() -> Mapping[str, Any]:
    a = draw(96, 96)
    positive = a @ a.t() + 96 * torch.eye(96, device=DEVICE)
    return {
        "cholesky": torch.linalg.cholesky(positive),
        "solve": torch.linalg.solve(positive, draw(96, 3)),
        "svd": torch.linalg.svdvals(a),
        "eigh": torch.linalg.eigvalsh(positive),
        "qr": torch.linalg.qr(a)[1].abs(),
        "lu": torch.linalg.lu_factor(positive)[0],
        "inverse": torch.linalg.inv(draw(32, 8, 8) + 9 * torch.eye(8, device=DEVICE)),
        "eig": torch.linalg.eigvals(draw(16, 16)).abs().sort()[0],
    }


@case
def sparse() -> Mapping[str, Any]:
    dense = draw(256, 256) * (draw(256, 257)[:, :256] > 1)
    x = draw(256, 32)
    return {"csr": dense.to_sparse_csr() @ x, "coo": torch.sparse.mm(dense.to_sparse_coo(), x)}


@case
def sorting() -> Mapping[str, Any]:
    a = draw(100_000)
    return {
        "sorted": a.sort()[0],
        "order": a.sort(stable=True)[1],
        "topk": a.topk(100)[0],
        "unique": (a * 3).int().unique(return_counts=True)[1],
        "rows": draw(300, 400).sort(1)[1],
        "median": a.median(),
    }


@case
def random_numbers() -> Mapping[str, Any]:
    torch.manual_seed(99)
    torch.cuda.manual_seed_all(99)
    return {
        "normal": torch.randn(10_000, device=DEVICE),
        "uniform": torch.rand(100, device=DEVICE),
        "permutation": torch.randperm(5000, device=DEVICE),
        "dropout": F.dropout(torch.ones(4096, device=DEVICE), 0.3),
        "multinomial": torch.multinomial(torch.rand(50, device=DEVICE), 10),
    }


@case
def indexing() -> Mapping[str, Any]:
    a = draw(500, 40)
    rows = torch.arange(0, 500, 7, device=DEVICE)
    out = torch.zeros(10, 40, device=DEVICE, dtype=torch.int64)
    out.index_add_(0, rows % 10, (a[rows] * 100).long())
    return {"gather": a[rows], "added": out, "nonzero": (a > 1).nonzero(), "masked": a[a > 2]}


@case
def optimisers() -> Mapping[str, Any]:
    results = {}
    for name, options in (("AdamW", {"fused": True}), ("SGD", {"momentum": 0.9}), ("Adam", {})):
        w = draw(128, 128).requires_grad_()
        optimiser = getattr(torch.optim, name)([w], lr=0.01, **options)
        for step in range(5):
            optimiser.zero_grad()
            (w @ draw(128, 8 + step)).square().mean().backward()
            optimiser.step()
        results[name] = w
    return results


if __name__ == "__main__":
    cases.main()
