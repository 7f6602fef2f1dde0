#!/bin/bash
# The main job, shown: matrixMul, built by nvcc and linked with the static CUDA runtime, on a GPU of the pool.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/demo.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/.."

program=$1/programs/static/matrixMul
if [ ! -x "$program" ]; then
  echo "demo: $program was not built: nvcc was not found when $1 was configured." >&2
  echo "demo: Type: rm -rf $1 && make demo" >&2
  exit 1
fi
echo
echo "The GPUs that this machine's pool has:"
echo "  \$ .venv/bin/outboard gpus"
.venv/bin/outboard gpus
echo
echo "matrixMul knows nothing of Outboard: it loads libcuda.so.1, as every CUDA program does."
echo "  \$ .venv/bin/outboard run -n 1 -- $program"
.venv/bin/outboard run -n 1 -- "$program"
echo
echo "That ran in two processes: the program, which has no GPU, and a worker, which executed its calls."
echo "Next: .venv/bin/outboard run -n 1 -- bash    (a shell in which every CUDA program has the GPU)"
