// Captured graphs and what is made of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <memory>

namespace outboard::worker {

struct Context;

struct Graph {
  std::shared_ptr<Context> context;
  CUgraph handle = nullptr;
};

struct ExecutableGraph {
  std::shared_ptr<Context> context;
  CUgraphExec handle = nullptr;
};

}  // namespace outboard::worker
