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
    std::vector<std::shared_ptr<GraphExec>> bodies;  ///< of a conditional node
    std::vector<size_t> dependencies;                ///< indices of steps, sorted
  };

  /// Null where the graph has a cycle. To be called under capture_mutex().
  static std::shared_ptr<GraphExec> create(const Graph& graph, uint64_t flags);

  /// Runs steps that snapshot() gave; null: those of now.
  CUresult run(Context& context, const std::shared_ptr<void>& launched);
  /// A launch runs what the graph is when it is launched, however it is changed afterwards.
  std::shared_ptr<void> snapshot();

  /// The steps, to be changed: a launch that runs keeps those that it began with. To be called
  /// with `mutex` held.
  std::vector<Step>& editable();

  CUgraphExec handle = nullptr;
  uint64_t flags = 0;
  std::mutex mutex;  ///< guards `steps`
  std::shared_ptr<std::vector<Step>> steps = std::make_shared<std::vector<Step>>();
  std::vector<std::shared_ptr<void>> user_objects;
  std::vector<std::shared_ptr<Condition>> conditions;

 private:
  CUresult run_steps(Context& context, const std::vector<Step>& now);

  std::mutex running_;  ///< launches of one executable graph do not overlap
};

HandleTable<GraphExec, CUgraphExec, 11>& graph_execs();

}  // namespace softgpu
