"""On a real GPU: records training steps of ResNet-50 and GPT-2, to be replayed without one.

SPDX-License-Identifier: Apache-2.0

Run after `make build` on a machine with an NVIDIA GPU and PyTorch:
`python3 tests/gpu/record.py FOLDER`; writes FOLDER/resnet50.obrec.xz and FOLDER/gpt2.obrec.xz,
which belong in `tests/recordings/`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RESNET50 = """
import torch, torchvision
torch.manual_seed(1)
model = torchvision.models.resnet50().cuda()
optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
x, target = torch.randn(4, 3, 96, 96, device="cuda"), torch.arange(4, device="cuda")
for _ in range(3):
    optimiser.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), target)
    loss.backward()
    optimiser.step()
    print(loss.item())
"""

GPT2 = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel
torch.manual_seed(2)
model = GPT2LMHeadModel(GPT2Config(n_layer=4, vocab_size=5000)).cuda()
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
x = torch.randint(5000, (2, 128), device="cuda")
for _ in range(3):
    optimiser.zero_grad()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(input_ids=x, labels=x).loss
    loss.backward()
    optimiser.step()
    print(loss.item())
"""


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": ":".join(filter(None, paths))}
    for name, program in (("resnet50", RESNET50), ("gpt2", GPT2)):
        with tempfile.TemporaryDirectory() as temporary:
            recorded = Path(temporary) / "recorded"
            run = [sys.executable, "-m", "outboard", "run", "-q", "-n", "1", "-m", "16384", "--"]
            subprocess.run(
                [*run, sys.executable, "-c", program],
                env=environment | {"OUTBOARD_RECORD": str(recorded)},
                check=True,
            )
            shrink = [sys.executable, "-m", "tests.recordings.recording", "shrink"]
            target = str(folder / f"{name}.obrec.xz")
            subprocess.run([*shrink, str(recorded), target], env=environment, cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
