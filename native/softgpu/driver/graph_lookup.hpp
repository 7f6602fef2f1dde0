// What entry points about graphs begin with: the graph or node that a handle names, under the lock.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "capture.hpp"
#include "graph_exec.hpp"
#include "guard.hpp"

namespace softgpu {

/// `call(Graph&)`.
template <class Call>
CUresult with_graph(CUgraph handle, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    std::lock_guard lock(capture_mutex());
    std::shared_ptr<Graph> graph = graphs().find(handle);
    return graph ? call(*graph) : CUDA_ERROR_INVALID_VALUE;
  });
}

/// `call(GraphNode&)`.
template <class Call>
CUresult with_node(CUgraphNode handle, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    std::lock_guard lock(capture_mutex());
    std::shared_ptr<GraphNode> node = graph_nodes().find(handle);
    return node ? call(*node) : CUDA_ERROR_INVALID_VALUE;
  });
}

/// `call(GraphNode&, Content&)` for a node of that kind.
template <class Content, class Call>
CUresult with_content(CUgraphNode handle, Call&& call) noexcept {
  return with_node(handle, [&](GraphNode& node) -> CUresult {
    auto* content = std::get_if<Content>(&node.content);
    return content ? call(node, *content) : CUDA_ERROR_INVALID_VALUE;
  });
}

/// `call(GraphExec&, Step&)` for the step made from that node. Launches already made keep what
/// they had.
template <class Call>
CUresult with_step(CUgraphExec exec_handle, CUgraphNode node, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    std::shared_ptr<GraphExec> exec = graph_execs().find(exec_handle);
    if (!exec) return CUDA_ERROR_INVALID_VALUE;
    std::scoped_lock lock(capture_mutex(), exec->mutex);
    for (GraphExec::Step& step : exec->editable()) {
      if (step.node == node) return call(*exec, step);
    }
    return CUDA_ERROR_INVALID_VALUE;
  });
}

}  // namespace softgpu
