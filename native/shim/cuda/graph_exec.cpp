// Executable graphs: made, changed, launched.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <utility>

#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/graph_content.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/host_functions.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

constexpr unsigned long long instantiate_flags = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH |
                                                 CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
                                                 CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;

struct Instantiated {
  CUgraphInstantiateResult outcome = CUDA_GRAPH_INSTANTIATE_ERROR;
  CUgraphNode node = nullptr;
};

CUresult instantiate(CUgraphExec* out, CUgraph value, unsigned long long flags,
                     Instantiated* told) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Graph* graph = find(value);
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & ~instantiate_flags) != 0) {
    return flags == CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH ? CUDA_ERROR_NOT_SUPPORTED
                                                              : CUDA_ERROR_INVALID_VALUE;
  }
  GraphExec* executable = graph_execs.take();
  if (executable == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  executable->context = context;
  executable->flags = flags;
  executable->keeps = graph->keeps;
  CUresult result = make_plan(graph, &executable->plan);
  client::Answer<wire::command::GraphInstantiate> answer;
  if (result == CUDA_SUCCESS) {
    // An upload, where it is wanted, is a call of its own.
    result = call(context,
                  wire::command::GraphInstantiate{
                      .graph = graph->id(),
                      .executable = executable->head.id(),
                      .flags = flags & ~uint64_t{CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD}},
                  &answer);
    told->outcome = static_cast<CUgraphInstantiateResult>(answer.reply.outcome);
  }
  if (result != CUDA_SUCCESS) {
    if (answer.reply.node != 0) told->node = handle(name_node(graph, answer.reply.node));
    forget(executable);
    return result;
  }
  told->outcome = CUDA_GRAPH_INSTANTIATE_SUCCESS;
  executable->events.assign(answer.reply.events.begin(), answer.reply.events.end());
  *out = handle(executable);
  return CUDA_SUCCESS;
}

CUresult find_executable(CUgraphExec value, GraphExec** out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *out = find(value);
  return *out != nullptr ? check((*out)->context) : CUDA_ERROR_INVALID_VALUE;
}

bool has_part(const LaunchPlan* plan, uint64_t node) {
  const auto is_of_node = [&](const auto& entry) { return entry.node == node; };
  return plan != nullptr &&
         (std::any_of(plan->copies.begin(), plan->copies.end(), is_of_node) ||
          std::any_of(plan->functions.begin(), plan->functions.end(), is_of_node));
}

// From now on the server copies by itself.
void drop_copy(LaunchPlan* plan, size_t place) {
  plan->copies[place].with_launch = false;
  for (LaunchPlan::Function& function : plan->functions) {
    std::erase(function.fetches, place);
    std::erase(function.sends, place);
  }
}

// The plan with a node's host parts replaced. Launches under way keep what they began with.
std::shared_ptr<const LaunchPlan> changed(const std::shared_ptr<const LaunchPlan>& plan,
                                          uint64_t node, const NodeContent& content) {
  auto copy = std::make_shared<LaunchPlan>(*plan);
  for (size_t i = 0; i < copy->copies.size(); ++i) {
    if (copy->copies[i].node != node) continue;
    if (content.copy != nullptr) {
      copy->copies[i].copy = content.copy;
    } else {
      drop_copy(copy.get(), i);
    }
  }
  for (LaunchPlan::Function& entry : copy->functions) {
    if (entry.node == node && content.function != 0) entry.number = content.function;
  }
  return copy;
}

CUresult set(CUgraphExec hExec, CUgraphNode hNode, const CUgraphNodeParams& given) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  GraphExec* executable = find(hExec);
  const Node* node = find(hNode);
  if (executable == nullptr || node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeContent content;
  CUresult result = read_content(context, given, &content);
  if (result != CUDA_SUCCESS) return result;
  // A copy between device and host stays one; what it was before has no place for the other end.
  const bool was_part = has_part(executable->plan.get(), node->id);
  if (content.has_host_parts() && !was_part) return CUDA_ERROR_INVALID_VALUE;
  wire::command::GraphExecutableSetParams command;
  command.executable = executable->head.id();
  command.node = node->id;
  command.content = content.bytes();
  command.arguments = content.arguments;
  client::Answer<wire::command::GraphExecutableSetParams> answer;
  result = call(context, command, &answer);
  if (result != CUDA_SUCCESS) return result;
  if (was_part) executable->plan = changed(executable->plan, node->id, content);
  executable->events.assign(answer.reply.events.begin(), answer.reply.events.end());
  return CUDA_SUCCESS;
}

// Where host memory is involved, a launch on another stream than the last comes after that one: the
// shadows are the executable's.
CUresult follow_last_launch(const GraphExec* executable, Stream* stream) {
  if (executable->last_stream == 0 || executable->last_stream == stream->head.id()) {
    return CUDA_SUCCESS;
  }
  Stream* last = streams.find_id(executable->last_stream);
  if (last == nullptr || last->progress.complete.load() >= executable->last_count) {
    return CUDA_SUCCESS;
  }
  return wait_all(last);
}

// The events that the graph records are complete with the launch, and with what it copies to the
// host, at the latest.
void note_events(const GraphExec* executable, const Stream* stream) {
  const auto origin =
      executable->plan == nullptr ? Event::Origin::graph : Event::Origin::graph_with_copies;
  const uint64_t count = stream->progress.issued.load();
  for (const uint64_t id : executable->events) {
    Event* event = events.find_id(id);
    if (event == nullptr) continue;
    event->capture.store(0);
    event->count.store(count, std::memory_order_relaxed);
    event->origin.store(origin, std::memory_order_relaxed);
    event->stream.store(stream->head.id(), std::memory_order_release);
    event->recorded.store(true, std::memory_order_release);
  }
}

CUresult launch(GraphExec* executable, Stream* stream) {
  const wire::command::GraphLaunch command{.stream = stream->head.id(),
                                           .executable = executable->head.id()};
  const auto plan = executable->plan;
  Reach reach(stream);
  if (const CUresult result = reach.add_captured(); result != CUDA_SUCCESS) return result;
  if (plan == nullptr) {
    CUresult result = reach.add_stored();
    if (result == CUDA_SUCCESS) result = send(stream, command);
    reach.sent();
    if (result == CUDA_SUCCESS) note_events(executable, stream);
    return result;
  }
  CUresult result = follow_last_launch(executable, stream);
  if (result == CUDA_SUCCESS) result = plan->before_launch(stream);
  if (result == CUDA_SUCCESS) result = reach.add_stored();
  if (result != CUDA_SUCCESS) return result;
  for (size_t i = 0; i < plan->functions.size(); ++i) {
    expect_call(plan->functions[i].number, stream, plan, i);
  }
  result = send(stream, command);
  reach.sent();
  if (result == CUDA_SUCCESS) result = plan->after_launch(stream);
  executable->last_stream = stream->head.id();
  executable->last_count = stream->progress.issued.load();
  if (result == CUDA_SUCCESS) note_events(executable, stream);
  return result;
}

// In a capture the launched graph becomes a node of the capture's.
CUresult capture_launch(const GraphExec* executable, Stream* stream) {
  if (executable->plan != nullptr && !executable->plan->copies.empty()) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  Graph* graph = captured_graph(stream);
  if (graph == nullptr) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  graph->has_host_parts |= executable->plan != nullptr;
  graph->keeps.insert(graph->keeps.end(), executable->keeps.begin(), executable->keeps.end());
  return send(stream, wire::command::GraphLaunch{.stream = stream->head.id(),
                                                 .executable = executable->head.id()});
}

}  // namespace

CUresult cuGraphInstantiateWithFlags(CUgraphExec* phGraphExec, CUgraph hGraph,
                                     unsigned long long flags) {
  Instantiated told;
  return instantiate(phGraphExec, hGraph, flags, &told);
}

CUresult cuGraphInstantiate_v2(CUgraphExec* phGraphExec, CUgraph hGraph, CUgraphNode* phErrorNode,
                               char* logBuffer, size_t bufferSize) {
  if (logBuffer != nullptr && bufferSize != 0) *logBuffer = 0;
  Instantiated told;
  const CUresult result = instantiate(phGraphExec, hGraph, 0, &told);
  if (phErrorNode != nullptr) *phErrorNode = told.node;
  return result;
}

CUresult cuGraphInstantiateWithParams(CUgraphExec* phGraphExec, CUgraph hGraph,
                                      CUDA_GRAPH_INSTANTIATE_PARAMS* instantiateParams) {
  if (instantiateParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Instantiated told;
  const CUresult result = instantiate(phGraphExec, hGraph, instantiateParams->flags, &told);
  instantiateParams->hErrNode_out = told.node;
  instantiateParams->result_out = told.outcome;
  if (result == CUDA_SUCCESS &&
      (instantiateParams->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0) {
    return shim::cuGraphUpload(*phGraphExec, instantiateParams->hUploadStream);
  }
  return result;
}

CUresult cuGraphExecDestroy(CUgraphExec hGraphExec) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  GraphExec* executable = find(hGraphExec);
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result =
      send(executable->context,
           wire::command::GraphExecutableDestroy{.executable = executable->head.id()});
  forget(executable);
  return result;
}

CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  GraphExec* executable = find(hGraphExec);
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return is_captured(stream) ? capture_launch(executable, stream) : launch(executable, stream);
}

CUresult cuGraphUpload(CUgraphExec hGraphExec, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  const GraphExec* executable = find(hGraphExec);
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send(stream, wire::command::GraphUpload{.stream = stream->head.id(),
                                                 .executable = executable->head.id()});
}

// ---- changes
// -------------------------------------------------------------------------------------

CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph,
                              CUgraphExecUpdateResultInfo* resultInfo) {
  GraphExec* executable = nullptr;
  if (const CUresult result = find_executable(hGraphExec, &executable); result != CUDA_SUCCESS)
    return result;
  Graph* graph = find(hGraph);
  if (graph == nullptr || resultInfo == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *resultInfo = {};
  std::shared_ptr<const LaunchPlan> plan;
  CUresult result = make_plan(graph, &plan);
  if (result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::GraphExecutableUpdate> answer;
  result = call(executable->context,
                wire::command::GraphExecutableUpdate{.executable = executable->head.id(),
                                                     .graph = graph->id()},
                &answer);
  const auto& reply = answer.reply;
  resultInfo->result = static_cast<CUgraphExecUpdateResult>(reply.outcome);
  if (reply.node != 0) resultInfo->errorNode = handle(name_node(graph, reply.node));
  if (reply.from != 0) resultInfo->errorFromNode = handle(name_node(graph, reply.from));
  if (result != CUDA_SUCCESS) return result;
  executable->events.assign(reply.events.begin(), reply.events.end());
  executable->plan = std::move(plan);
  executable->keeps = graph->keeps;
  return CUDA_SUCCESS;
}

CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode* hErrorNode_out,
                           CUgraphExecUpdateResult* updateResult_out) {
  CUgraphExecUpdateResultInfo info{};
  const CUresult result = shim::cuGraphExecUpdate_v2(hGraphExec, hGraph, &info);
  if (hErrorNode_out != nullptr) *hErrorNode_out = info.errorNode;
  if (updateResult_out != nullptr) *updateResult_out = info.result;
  return result;
}

CUresult cuGraphNodeSetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int isEnabled) {
  GraphExec* executable = nullptr;
  if (const CUresult result = find_executable(hGraphExec, &executable); result != CUDA_SUCCESS)
    return result;
  const Node* node = find(hNode);
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::GraphExecutableSetEnabled> answer;
  return call(executable->context,
              wire::command::GraphExecutableSetEnabled{
                  .executable = executable->head.id(), .node = node->id, .enabled = isEnabled},
              &answer);
}

CUresult cuGraphNodeGetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int* isEnabled) {
  GraphExec* executable = nullptr;
  if (const CUresult result = find_executable(hGraphExec, &executable); result != CUDA_SUCCESS)
    return result;
  const Node* node = find(hNode);
  if (node == nullptr || isEnabled == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::GraphExecutableGetEnabled> answer;
  const CUresult result = call(executable->context,
                               wire::command::GraphExecutableGetEnabled{
                                   .executable = executable->head.id(), .node = node->id},
                               &answer);
  if (result == CUDA_SUCCESS) *isEnabled = answer.reply.enabled;
  return result;
}

CUresult cuGraphExecNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                  CUgraphNodeParams* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE : set(hGraphExec, hNode, *nodeParams);
}
CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec hGraphExec, CUgraphNode hNode,
                                           const CUDA_KERNEL_NODE_PARAMS* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE
                               : set(hGraphExec, hNode, kernel_params(*nodeParams));
}
CUresult cuGraphExecKernelNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                        const CUDA_KERNEL_NODE_PARAMS_v1* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE
                               : set(hGraphExec, hNode, kernel_params(*nodeParams));
}
CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                        const CUDA_MEMCPY3D* copyParams, CUcontext) {
  return copyParams == nullptr ? CUDA_ERROR_INVALID_VALUE
                               : set(hGraphExec, hNode, copy_params(*copyParams));
}
CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                        const CUDA_MEMSET_NODE_PARAMS* memsetParams, CUcontext) {
  return memsetParams == nullptr ? CUDA_ERROR_INVALID_VALUE
                                 : set(hGraphExec, hNode, fill_params(*memsetParams));
}
CUresult cuGraphExecHostNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                      const CUDA_HOST_NODE_PARAMS* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE
                               : set(hGraphExec, hNode, host_params(*nodeParams));
}
CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                            CUgraph childGraph) {
  const Graph* child = find(childGraph);
  if (child != nullptr && child->has_host_parts) return CUDA_ERROR_NOT_SUPPORTED;
  return set(hGraphExec, hNode, child_params(childGraph));
}
CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode,
                                            CUevent event) {
  return set(hGraphExec, hNode, event_params(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event));
}
CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode,
                                          CUevent event) {
  return set(hGraphExec, hNode, event_params(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event));
}
CUresult cuGraphExecBatchMemOpNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                            const CUDA_BATCH_MEM_OP_NODE_PARAMS* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE
                               : set(hGraphExec, hNode, operations_params(*nodeParams));
}

}  // namespace outboard::shim
