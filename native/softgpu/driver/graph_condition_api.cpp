// Conditions of graphs, and the nodes that run what a condition says.
// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "../engine/conditions.hpp"
#include "graph_contents.hpp"
#include "graph_lookup.hpp"

namespace softgpu {
namespace {

/// By their handles; those whose graphs are gone are dropped when another is made. Guarded by
/// capture_mutex().
std::map<CUgraphConditionalHandle, std::weak_ptr<Condition>>& conditions() {
  static auto& all = *new std::map<CUgraphConditionalHandle, std::weak_ptr<Condition>>;
  return all;
}

bool size_fits(CUgraphConditionalNodeType type, unsigned size) {
  switch (type) {
    case CU_GRAPH_COND_TYPE_IF:
      return size == 1 || size == 2;
    case CU_GRAPH_COND_TYPE_WHILE:
      return size == 1;
    case CU_GRAPH_COND_TYPE_SWITCH:
      return size >= 1;
    default:
      return false;
  }
}

}  // namespace

Condition::~Condition() { Conditions::get().destroy(handle); }

CUresult conditional_content(CUDA_CONDITIONAL_NODE_PARAMS* p, NodeContent* out) {
  const auto found = conditions().find(p->handle);
  const auto condition = found != conditions().end() ? found->second.lock() : nullptr;
  if (!condition || condition->used || !size_fits(p->type, p->size)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  condition->used = true;
  ConditionalContent content;
  content.condition = condition;
  content.type = p->type;
  for (unsigned i = 0; i < p->size; ++i) {
    auto body = std::make_shared<Graph>();
    body->is_child = true;
    body->handle = graphs().insert(body);
    content.handles.push_back(body->handle);
    content.bodies.push_back(std::move(body));
  }
  // The array is the node's, and stays where it is when the content moves there.
  p->phGraph_out = content.handles.data();
  *out = std::move(content);
  return CUDA_SUCCESS;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle* out, CUgraph handle,
                                                   CUcontext, unsigned int value,
                                                   unsigned int flags) {
  return with_graph(handle, [&](Graph& graph) {
    if (out == nullptr || (flags & ~CU_GRAPH_COND_ASSIGN_DEFAULT) != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    auto condition = std::make_shared<Condition>();
    condition->handle = Conditions::get().create();
    condition->value = value;
    condition->assigned = flags == CU_GRAPH_COND_ASSIGN_DEFAULT;
    std::erase_if(conditions(), [](const auto& entry) { return entry.second.expired(); });
    conditions()[condition->handle] = condition;
    graph.conditions.push_back(condition);
    *out = condition->handle;
    return CUDA_SUCCESS;
  });
}
