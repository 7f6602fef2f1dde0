"""Models with random weights: training steps and inference, as users of PyTorch run them.

SPDX-License-Identifier: Apache-2.0
"""

from collections.abc import Mapping
from typing import Any

import cases
import torch
import torchvision
from cases import case
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

DEVICE = "cuda"
torch.backends.cudnn.deterministic = True


def images(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(count, 3, size, size, generator=generator).to(DEVICE)


def words(count: int, length: int, vocabulary: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(vocabulary, (count, length), generator=generator).to(DEVICE)


def vision(model: torch.nn.Module, size: int, dtype: torch.dtype) -> Mapping[str, Any]:
    model = model.to(DEVICE)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, target = images(8, size), torch.arange(8, device=DEVICE)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            loss = torch.nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    with torch.inference_mode():
        return {"losses": losses, "y": model(x)}


@case
def resnet50() -> Mapping[str, Any]:
    torch.manual_seed(1)
    return vision(torchvision.models.resnet50(), 224, torch.float32)


@case
def resnet50_bfloat16() -> Mapping[str, Any]:
    torch.manual_seed(1)
    model = torchvision.models.resnet50().to(memory_format=torch.channels_last)
    return vision(model, 224, torch.bfloat16)


@case
def vit() -> Mapping[str, Any]:
    torch.manual_seed(2)
    return vision(torchvision.models.vit_b_16(), 224, torch.bfloat16)


def language(model: torch.nn.Module, x: torch.Tensor, **labels: Any) -> Mapping[str, Any]:
    model = model.to(DEVICE)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=x, **labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    with torch.inference_mode():
        return {"losses": losses, "logits": model(input_ids=x).logits}


def without_dropout() -> dict[str, float]:
    return {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@case
def gpt2() -> Mapping[str, Any]:
    torch.manual_seed(3)
    model = GPT2LMHeadModel(GPT2Config(n_layer=6, **without_dropout()))
    x = words(4, 256, 50257)
    results = dict(language(model, x, labels=x))
    tokens = model.generate(x[:1, :16], max_new_tokens=24, do_sample=False, pad_token_id=0)
    return results | {"tokens": tokens}


@case
def bert() -> Mapping[str, Any]:
    torch.manual_seed(4)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=4))
    return language(model, words(8, 128, 30522), labels=torch.arange(8, device=DEVICE) % 2)


@case
def llama() -> Mapping[str, Any]:
    torch.manual_seed(5)
    shape = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4}
    model = LlamaForCausalLM(
        LlamaConfig(num_attention_heads=8, num_key_value_heads=4, vocab_size=8000, **shape)
    )
    x = words(2, 256, 8000)
    results = dict(language(model, x, labels=x))
    tokens = model.generate(x[:1, :16], max_new_tokens=24, do_sample=False, pad_token_id=0)
    return results | {"tokens": tokens}


if __name__ == "__main__":
    cases.main()
