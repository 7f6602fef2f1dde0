// Executable graphs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "graph.hpp"

namespace softgpu {

/// A graph made ready to run: its nodes, one after the other in an order that respects the edges.
class GraphExec {
 public:
  struct Step {
    CUgraphNode node = nullptr;  ///< of the graph it was made from
    NodeContent content;
    bool enabled = true;
    std::shared_ptr<GraphExec> child;
    std::vector<size_t> dependencies;  ///< indices of steps, sorted
  };

  /// Null where the graph has a cycle. To be called under capture_mutex().
  static std::shared_ptr<GraphExec> create(const Graph& graph, uint64_t flags);

  CUresult run(Context& context);

  CUgraphExec handle = nullptr;
  uint64_t flags = 0;
  std::mutex mutex;  ///< a launch runs alone, and parameters change only between launches
  std::vector<Step> steps;
};

HandleTable<GraphExec, CUgraphExec, 11>& graph_execs();

}  // namespace softgpu
