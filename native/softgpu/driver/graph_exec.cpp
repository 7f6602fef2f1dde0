// Executable graphs: made from a graph, run as one operation of a stream.
// SPDX-License-Identifier: Apache-2.0
#include "graph_exec.hpp"

#include <algorithm>
#include <map>

#include "../engine/conditions.hpp"
#include "context.hpp"
#include "values.hpp"

namespace softgpu {

HandleTable<GraphExec, CUgraphExec, 11>& graph_execs() {
  static auto& table = *new HandleTable<GraphExec, CUgraphExec, 11>;
  return table;
}

std::shared_ptr<GraphExec> GraphExec::create(const Graph& graph, uint64_t flags) {
  std::vector<GraphNode*> order = graph.ordered();
  if (order.empty() && !graph.nodes.empty()) return nullptr;
  auto exec = std::make_shared<GraphExec>();
  exec->flags = flags;
  exec->user_objects = graph.user_objects;
  exec->conditions = graph.conditions;
  std::map<const GraphNode*, size_t> index;
  for (GraphNode* node : order) {
    index[node] = exec->steps->size();
    Step step;
    step.node = node->handle;
    step.content = node->content;
    if (auto* child = std::get_if<ChildContent>(&node->content)) {
      step.child = create(*child->graph, flags);
      if (!step.child) return nullptr;
    }
    if (auto* conditional = std::get_if<ConditionalContent>(&node->content)) {
      for (const auto& body : conditional->bodies) {
        step.bodies.push_back(create(*body, flags));
        if (!step.bodies.back()) return nullptr;
      }
    }
    for (GraphNode* from : node->dependencies) step.dependencies.push_back(index[from]);
    std::sort(step.dependencies.begin(), step.dependencies.end());
    exec->steps->push_back(std::move(step));
  }
  return exec;
}

namespace {

/// Runs one node's content on the calling thread.
struct RunContent {
  Context& context;

  CUresult operator()(const KernelOperation& op) { return operation(op); }
  CUresult operator()(const CopyOperation& op) { return operation(op); }
  CUresult operator()(const MemsetOperation& op) { return operation(op); }
  CUresult operator()(const HostOperation& op) { return operation(op); }
  CUresult operator()(const EmptyContent&) { return CUDA_SUCCESS; }
  CUresult operator()(const ChildContent&) { return CUDA_SUCCESS; }  // done by the caller
  CUresult operator()(const ConditionalContent&) { return CUDA_SUCCESS; }
  CUresult operator()(const RecordContent& c) {
    c.event->renew()->complete();
    return CUDA_SUCCESS;
  }
  CUresult operator()(const WaitContent& c) {
    if (auto record = c.event->latest()) record->wait(context);
    return CUDA_SUCCESS;
  }
  CUresult operator()(const ValueContent& c) {
    for (const CUstreamBatchMemOpParams& p : c.parameters) {
      std::optional<ValueOperation> op;
      if (value_operation(context.device, p, &op) != CUDA_SUCCESS) {
        return CUDA_ERROR_ILLEGAL_ADDRESS;
      }
      if (op) {
        if (CUresult r = operation(*op); r != CUDA_SUCCESS) return r;
      }
    }
    return CUDA_SUCCESS;
  }
  CUresult operator()(const AllocContent&) { return CUDA_SUCCESS; }  // there since the graph is
  CUresult operator()(const FreeContent&) { return CUDA_SUCCESS; }   // gone with the graph

  template <class Op>
  CUresult operation(const Op& op) {
    Operation copy = op;
    return execute(copy, context);
  }
};

/// Runs what the condition says, which the bodies may change.
CUresult run_bodies(Context& context, const ConditionalContent& content,
                    const std::vector<std::shared_ptr<GraphExec>>& bodies) {
  const auto value = [&] { return Conditions::get().value(content.condition->handle); };
  if (content.type == CU_GRAPH_COND_TYPE_WHILE) {
    while (value() != 0) {
      if (CUresult r = bodies[0]->run(context, nullptr); r != CUDA_SUCCESS) return r;
    }
    return CUDA_SUCCESS;
  }
  const bool is_switch = content.type == CU_GRAPH_COND_TYPE_SWITCH;
  const size_t chosen = is_switch ? value() : (value() != 0 ? 0 : 1);
  return chosen < bodies.size() ? bodies[chosen]->run(context, nullptr) : CUDA_SUCCESS;
}

}  // namespace

std::vector<GraphExec::Step>& GraphExec::editable() {
  if (steps.use_count() > 1) steps = std::make_shared<std::vector<Step>>(*steps);
  return *steps;
}

std::shared_ptr<void> GraphExec::snapshot() {
  std::lock_guard lock(mutex);
  return steps;
}

CUresult GraphExec::run(Context& context, const std::shared_ptr<void>& launched) {
  std::lock_guard alone(running_);
  const auto now = std::static_pointer_cast<std::vector<Step>>(launched ? launched : snapshot());
  for (const auto& condition : conditions) {
    if (condition->assigned) Conditions::get().set(condition->handle, condition->value);
  }
  return run_steps(context, *now);
}

CUresult GraphExec::run_steps(Context& context, const std::vector<Step>& now) {
  for (const Step& step : now) {
    if (!step.enabled) continue;
    CUresult r = CUDA_SUCCESS;
    if (const auto* conditional = std::get_if<ConditionalContent>(&step.content)) {
      r = run_bodies(context, *conditional, step.bodies);
    } else {
      r = step.child ? step.child->run(context, nullptr)
                     : std::visit(RunContent{context}, step.content);
    }
    if (r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

}  // namespace softgpu
