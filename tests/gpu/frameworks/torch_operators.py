"""Every operator and module that PyTorch describes for its own tests, forwards and backwards.

SPDX-License-Identifier: Apache-2.0

A case an entry of PyTorch's databases of operators and modules; its arrays are what the entry's own
sample inputs give, by type and number, and their gradients. Needs the package `expecttest`, as
PyTorch's tests do.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import cases
import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

DEVICE = os.environ.get("OUTBOARD_TEST_DEVICE", "cuda")
DTYPES = (torch.float32, torch.bfloat16, torch.complex64, torch.int64)
SAMPLES = 4
# Their results are memory that nobody wrote, or are in part.
UNWRITTEN = ("empty", "new_empty", "resize_", "torch.ops.aten._efficient_attention_forward")


def dense(value: torch.Tensor) -> torch.Tensor:
    value = value.detach()
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.is_quantized:
        value = value.int_repr()
    if value.dtype == torch.complex32:  # which NumPy does not have
        value = value.to(torch.complex64)
    return value.clone().resolve_conj().resolve_neg()


def outcome(work: Any, inputs: list[torch.Tensor]) -> Iterator[tuple[str, Any]]:
    """What the work gives, and what its sum's gradient is; an error is a result, too."""
    try:
        given = work()
        outputs = [t for t in pytree.tree_leaves(given) if isinstance(t, torch.Tensor)]
        yield from ((f"out{n}", dense(t)) for n, t in enumerate(outputs))
        sums = [t.abs().sum() if t.is_complex() else t.sum() for t in outputs if t.requires_grad]
        if sums and inputs:
            total = sum(s.to(torch.float64) for s in sums)
            gradients = torch.autograd.grad(total, inputs, allow_unused=True)
            yield from ((f"grad{n}", dense(g)) for n, g in enumerate(gradients) if g is not None)
    except Exception as error:  # as natively, which is what is asked
        yield "error", type(error).__name__


def leaves(value: Any) -> list[torch.Tensor]:
    found = [t for t in pytree.tree_leaves(value) if isinstance(t, torch.Tensor)]
    return [t for t in found if t.requires_grad]


def operator(entry: Any) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        if dtype not in entry.dtypesIfCUDA:
            continue
        differentiable = dtype.is_floating_point or dtype.is_complex
        backwards = (
            differentiable and entry.supports_autograd and dtype in entry.backward_dtypesIfCUDA
        )
        torch.manual_seed(0)
        samples = entry.sample_inputs(DEVICE, dtype, requires_grad=backwards)
        for n, sample in enumerate(islice(samples, SAMPLES)):
            torch.manual_seed(n)

            def work(sample: Any = sample, backwards: bool = backwards) -> Any:
                given = entry.op(sample.input, *sample.args, **sample.kwargs)
                return sample.output_process_fn_grad(given) if backwards else given

            inputs = leaves((sample.input, sample.args, sample.kwargs))
            for key, value in outcome(work, inputs):
                found[f"{dtype}.{n}.{key}".removeprefix("torch.")] = value
    return found or {"none": np.zeros(0)}


def module(entry: Any) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    torch.manual_seed(0)
    inputs = entry.module_inputs_func(
        entry, device=DEVICE, dtype=torch.float32, requires_grad=True, training=True
    )
    for n, given in enumerate(islice(inputs, SAMPLES)):
        if given.forward_input is None:
            continue
        torch.manual_seed(n)
        made = given.constructor_input
        built = entry.module_cls(*made.args, **made.kwargs).to(DEVICE, torch.float32)
        call = given.forward_input

        def work(built: Any = built, call: Any = call) -> Any:
            return built(*call.args, **call.kwargs)

        wanted = [*built.parameters(), *leaves((call.args, call.kwargs))]
        for key, value in outcome(work, [p for p in wanted if p.requires_grad]):
            found[f"{n}.{key}"] = value
    return found or {"none": np.zeros(0)}


def main() -> None:
    warnings.simplefilter("ignore")
    for entry in op_db:
        if not entry.name.startswith(UNWRITTEN):
            name = f"{entry.name}_{entry.variant_test_name}".strip("_").replace(".", "_")
            cases.CASES[name] = lambda entry=entry: operator(entry)  # type: ignore[misc]
    for entry in module_db:
        name = entry.name.replace(".", "_")
        cases.CASES[f"module_{name}"] = lambda entry=entry: module(entry)  # type: ignore[misc]
    cases.main()


if __name__ == "__main__":
    main()
