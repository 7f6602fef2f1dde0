// Entry points that instantiate, change and launch graphs.
// SPDX-License-Identifier: Apache-2.0
#include "graph_contents.hpp"
#include "graph_lookup.hpp"
#include "submit.hpp"

using namespace softgpu;

namespace {

constexpr unsigned long long kKnownFlags = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH |
                                           CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
                                           CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;

CUresult instantiate(CUgraphExec* out, CUgraph handle, unsigned long long flags) {
  return with_context([&](Context&) -> CUresult {
    return with_graph(handle, [&](Graph& graph) {
      if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
      if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) return CUDA_ERROR_NOT_SUPPORTED;
      if (flags & ~kKnownFlags) return CUDA_ERROR_INVALID_VALUE;
      std::shared_ptr<GraphExec> exec = GraphExec::create(graph, flags);
      if (!exec) return CUDA_ERROR_INVALID_VALUE;
      exec->handle = graph_execs().insert(exec);
      *out = exec->handle;
      return CUDA_SUCCESS;
    });
  });
}

/// Replaces a step's content by one of the same kind.
template <class Content, class Make>
CUresult set(CUgraphExec exec, CUgraphNode node, Make&& make) noexcept {
  return with_context([&](Context& context) -> CUresult {
    return with_step(exec, node, [&](GraphExec&, GraphExec::Step& step) -> CUresult {
      if (!std::holds_alternative<Content>(step.content)) return CUDA_ERROR_INVALID_VALUE;
      NodeContent content;
      if (CUresult r = make(context, &content); r != CUDA_SUCCESS) return r;
      step.content = std::move(content);
      return CUDA_SUCCESS;
    });
  });
}

/// `exec` takes over the parameters of `fresh`, if they have the same shape. Its mutex is held.
CUgraphExecUpdateResult update_steps(GraphExec& exec, const GraphExec& fresh,
                                     CUgraphNode* error_node) {
  std::vector<GraphExec::Step>& steps = exec.editable();
  const std::vector<GraphExec::Step>& wanted = *fresh.steps;
  if (steps.size() != wanted.size()) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
  for (size_t i = 0; i < steps.size(); ++i) {
    const GraphExec::Step& a = steps[i];
    const GraphExec::Step& b = wanted[i];
    *error_node = b.node;
    if (a.dependencies != b.dependencies) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    if (a.content.index() != b.content.index()) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    }
    if (a.child) {
      std::lock_guard lock(a.child->mutex);
      CUgraphExecUpdateResult r = update_steps(*a.child, *b.child, error_node);
      if (r != CU_GRAPH_EXEC_UPDATE_SUCCESS) return r;
    }
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i].content = wanted[i].content;
    steps[i].node = wanted[i].node;
  }
  *error_node = nullptr;
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

}  // namespace

extern "C" CUresult cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph graph,
                                                unsigned long long flags) {
  return instantiate(out, graph, flags);
}
extern "C" CUresult cuGraphInstantiateWithParams(CUgraphExec* out, CUgraph graph,
                                                 CUDA_GRAPH_INSTANTIATE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUresult r = instantiate(out, graph, p->flags);
  p->hErrNode_out = nullptr;
  p->result_out = r == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
  return r;
}
extern "C" CUresult cuGraphInstantiate_v2(CUgraphExec* out, CUgraph graph, CUgraphNode* error_node,
                                          char* log, size_t log_bytes) {
  if (error_node != nullptr) *error_node = nullptr;
  if (log != nullptr && log_bytes > 0) log[0] = '\0';
  return instantiate(out, graph, 0);
}
extern "C" CUresult cuGraphInstantiate(CUgraphExec* out, CUgraph graph, CUgraphNode* error_node,
                                       char* log, size_t log_bytes) {
  return cuGraphInstantiate_v2(out, graph, error_node, log, log_bytes);
}

extern "C" CUresult cuGraphExecGetFlags(CUgraphExec handle, cuuint64_t* out) {
  return with_driver([&] {
    auto exec = graph_execs().find(handle);
    if (!exec || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = exec->flags;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphExecDestroy(CUgraphExec handle) {
  return with_driver(
      [&] { return graph_execs().erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuGraphUpload(CUgraphExec handle, CUstream stream_handle) {
  return with_context([&](Context& context) {
    std::shared_ptr<Stream> stream;
    if (!graph_execs().find(handle)) return CUDA_ERROR_INVALID_VALUE;
    return stream_of(context, stream_handle, &stream);
  });
}

extern "C" CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  return with_context([&](Context& context) {
    auto exec = graph_execs().find(handle);
    if (!exec) return CUDA_ERROR_INVALID_VALUE;
    auto steps = exec->snapshot();
    return submit(context, stream_handle, GraphOperation{std::move(exec), std::move(steps)});
  });
}

extern "C" CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node,
                                          unsigned int enabled) {
  return with_step(exec, node, [&](GraphExec&, GraphExec::Step& step) {
    bool can = std::holds_alternative<KernelOperation>(step.content) ||
               std::holds_alternative<CopyOperation>(step.content) ||
               std::holds_alternative<MemsetOperation>(step.content);
    if (!can) return CUDA_ERROR_INVALID_VALUE;
    step.enabled = enabled != 0;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int* out) {
  return with_step(exec, node, [&](GraphExec&, GraphExec::Step& step) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = step.enabled;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                                      const CUDA_KERNEL_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<KernelOperation>(exec, node, [&](Context& context, NodeContent* content) {
    return kernel_content(context, *p, content);
  });
}
extern "C" CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                   const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_KERNEL_NODE_PARAMS wide{p->func,         p->gridDimX,  p->gridDimY,  p->gridDimZ,
                               p->blockDimX,    p->blockDimY, p->blockDimZ, p->sharedMemBytes,
                               p->kernelParams, p->extra,     nullptr,      nullptr};
  return cuGraphExecKernelNodeSetParams_v2(exec, node, &wide);
}
extern "C" CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                   const CUDA_MEMCPY3D* p, CUcontext) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<CopyOperation>(
      exec, node, [&](Context&, NodeContent* content) { return copy_content(*p, content); });
}
extern "C" CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                   const CUDA_MEMSET_NODE_PARAMS* p, CUcontext) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<MemsetOperation>(
      exec, node, [&](Context&, NodeContent* content) { return memset_content(*p, content); });
}
extern "C" CUresult cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                 const CUDA_HOST_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<HostOperation>(
      exec, node, [&](Context&, NodeContent* content) { return host_content(*p, content); });
}
extern "C" CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode node,
                                                       CUevent event) {
  return set<RecordContent>(
      exec, node, [&](Context&, NodeContent* content) { return record_content(event, content); });
}
extern "C" CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode node,
                                                     CUevent event) {
  return set<WaitContent>(
      exec, node, [&](Context&, NodeContent* content) { return wait_content(event, content); });
}
extern "C" CUresult cuGraphExecBatchMemOpNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                       const CUDA_BATCH_MEM_OP_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<ValueContent>(exec, node, [&](Context& context, NodeContent* content) {
    return value_content(context, *p, content);
  });
}
extern "C" CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                       CUgraph child) {
  return with_step(exec, node, [&](GraphExec& owner, GraphExec::Step& step) {
    std::shared_ptr<Graph> graph = graphs().find(child);
    if (!step.child || !graph) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<GraphExec> fresh = GraphExec::create(*graph, owner.flags);
    CUgraphNode error_node = nullptr;
    std::lock_guard lock(step.child->mutex);
    if (!fresh || update_steps(*step.child, *fresh, &error_node) != CU_GRAPH_EXEC_UPDATE_SUCCESS) {
      return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    }
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                             CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return with_context([&](Context& context) -> CUresult {
    return with_step(exec, node, [&](GraphExec&, GraphExec::Step& step) -> CUresult {
      NodeContent content;
      if (CUresult r = any_content(context, p, &content); r != CUDA_SUCCESS) return r;
      if (content.index() != step.content.index() || step.child) return CUDA_ERROR_INVALID_VALUE;
      step.content = std::move(content);
      return CUDA_SUCCESS;
    });
  });
}

extern "C" CUresult cuGraphExecUpdate_v2(CUgraphExec handle, CUgraph graph,
                                         CUgraphExecUpdateResultInfo* info) {
  return with_context([&](Context&) -> CUresult {
    return with_graph(graph, [&](Graph& changed) {
      auto exec = graph_execs().find(handle);
      if (!exec || info == nullptr) return CUDA_ERROR_INVALID_VALUE;
      *info = {};
      std::shared_ptr<GraphExec> fresh = GraphExec::create(changed, exec->flags);
      if (!fresh) {
        info->result = CU_GRAPH_EXEC_UPDATE_ERROR;
        return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
      }
      std::lock_guard lock(exec->mutex);
      info->result = update_steps(*exec, *fresh, &info->errorNode);
      return info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS ? CUDA_SUCCESS
                                                          : CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    });
  });
}
extern "C" CUresult cuGraphExecUpdate(CUgraphExec handle, CUgraph graph, CUgraphNode* error_node,
                                      CUgraphExecUpdateResult* result) {
  CUgraphExecUpdateResultInfo info{};
  CUresult r = cuGraphExecUpdate_v2(handle, graph, &info);
  if (error_node != nullptr) *error_node = info.errorNode;
  if (result != nullptr) *result = info.result;
  return r;
}
