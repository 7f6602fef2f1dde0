// Entry points that add nodes to graphs, and read and change their parameters.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "copies.hpp"
#include "graph_contents.hpp"
#include "graph_lookup.hpp"

using namespace softgpu;

namespace {

/// Adds a node whose content `make(Context&, NodeContent*)` builds.
template <class Make>
CUresult add(CUgraphNode* out, CUgraph handle, const CUgraphNode* dependencies, size_t count,
             Make&& make) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::lock_guard lock(capture_mutex());
    std::shared_ptr<Graph> graph = graphs().find(handle);
    if (out == nullptr || !graph || (dependencies == nullptr && count > 0)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    std::vector<GraphNode*> before;
    for (size_t i = 0; i < count; ++i) {
      auto node = graph_nodes().find(dependencies[i]);
      if (!node || node->graph != graph.get()) return CUDA_ERROR_INVALID_VALUE;
      if (std::find(before.begin(), before.end(), node.get()) != before.end()) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      before.push_back(node.get());
    }
    NodeContent content;
    if (CUresult r = make(context, &content); r != CUDA_SUCCESS) return r;
    *out = graph->add(std::move(content), std::move(before))->handle;
    return CUDA_SUCCESS;
  });
}

/// Replaces a node's content by one of the same kind.
template <class Content, class Make>
CUresult set(CUgraphNode handle, Make&& make) noexcept {
  return with_context([&](Context& context) -> CUresult {
    return with_content<Content>(handle, [&](GraphNode& node, Content&) -> CUresult {
      NodeContent content;
      if (CUresult r = make(context, &content); r != CUDA_SUCCESS) return r;
      node.content = std::move(content);
      return CUDA_SUCCESS;
    });
  });
}

CUDA_KERNEL_NODE_PARAMS widen(const CUDA_KERNEL_NODE_PARAMS_v1& p) {
  return {p.func,      p.gridDimX,       p.gridDimY,     p.gridDimZ, p.blockDimX, p.blockDimY,
          p.blockDimZ, p.sharedMemBytes, p.kernelParams, p.extra,    nullptr,     nullptr};
}

}  // namespace

extern "C" CUresult cuGraphAddKernelNode_v2(CUgraphNode* out, CUgraph graph,
                                            const CUgraphNode* dependencies, size_t count,
                                            const CUDA_KERNEL_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(out, graph, dependencies, count, [&](Context& context, NodeContent* content) {
    return kernel_content(context, *p, content);
  });
}
extern "C" CUresult cuGraphAddKernelNode(CUgraphNode* out, CUgraph graph,
                                         const CUgraphNode* dependencies, size_t count,
                                         const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_KERNEL_NODE_PARAMS wide = widen(*p);
  return cuGraphAddKernelNode_v2(out, graph, dependencies, count, &wide);
}
extern "C" CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS* out) {
  return with_content<KernelOperation>(node, [&](GraphNode& n, KernelOperation& kernel) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = describe(n, kernel);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1* out) {
  CUDA_KERNEL_NODE_PARAMS wide{};
  CUresult r = cuGraphKernelNodeGetParams_v2(node, &wide);
  if (r != CUDA_SUCCESS) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = {wide.func,      wide.gridDimX,  wide.gridDimY,       wide.gridDimZ,     wide.blockDimX,
          wide.blockDimY, wide.blockDimZ, wide.sharedMemBytes, wide.kernelParams, wide.extra};
  return CUDA_SUCCESS;
}
extern "C" CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node,
                                                  const CUDA_KERNEL_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<KernelOperation>(node, [&](Context& context, NodeContent* content) {
    return kernel_content(context, *p, content);
  });
}
extern "C" CUresult cuGraphKernelNodeSetParams(CUgraphNode node,
                                               const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_KERNEL_NODE_PARAMS wide = widen(*p);
  return cuGraphKernelNodeSetParams_v2(node, &wide);
}

extern "C" CUresult cuGraphKernelNodeGetAttribute(CUgraphNode handle, CUkernelNodeAttrID attribute,
                                                  CUkernelNodeAttrValue* out) {
  return with_content<KernelOperation>(handle, [&](GraphNode& node, KernelOperation& kernel) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto known = node.attributes.find(attribute);
    *out = known != node.attributes.end() ? known->second : CUkernelNodeAttrValue{};
    if (attribute == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) {
      out->cooperative = kernel.launch.cooperative;
    }
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphKernelNodeSetAttribute(CUgraphNode handle, CUkernelNodeAttrID attribute,
                                                  const CUkernelNodeAttrValue* value) {
  return with_content<KernelOperation>(handle, [&](GraphNode& node, KernelOperation& kernel) {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    node.attributes[attribute] = *value;
    if (attribute == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) {
      kernel.launch.cooperative = value->cooperative != 0;
    }
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode to, CUgraphNode from) {
  return with_content<KernelOperation>(to, [&](GraphNode& node, KernelOperation& kernel) {
    return with_content<KernelOperation>(from, [&](GraphNode& source, KernelOperation& other) {
      node.attributes = source.attributes;
      kernel.launch.cooperative = other.launch.cooperative;
      return CUDA_SUCCESS;
    });
  });
}

extern "C" CUresult cuGraphAddMemcpyNode(CUgraphNode* out, CUgraph graph,
                                         const CUgraphNode* dependencies, size_t count,
                                         const CUDA_MEMCPY3D* p, CUcontext) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(out, graph, dependencies, count,
             [&](Context&, NodeContent* content) { return copy_content(*p, content); });
}
extern "C" CUresult cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D* out) {
  return with_content<CopyOperation>(node, [&](GraphNode&, CopyOperation& copy) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = describe(copy);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<CopyOperation>(
      node, [&](Context&, NodeContent* content) { return copy_content(*p, content); });
}

extern "C" CUresult cuGraphAddMemsetNode(CUgraphNode* out, CUgraph graph,
                                         const CUgraphNode* dependencies, size_t count,
                                         const CUDA_MEMSET_NODE_PARAMS* p, CUcontext) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(out, graph, dependencies, count,
             [&](Context&, NodeContent* content) { return memset_content(*p, content); });
}
extern "C" CUresult cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS* out) {
  return with_content<MemsetOperation>(node, [&](GraphNode&, MemsetOperation& m) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = {m.destination, m.pitch, m.value, m.element_bytes, m.width, m.height};
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<MemsetOperation>(
      node, [&](Context&, NodeContent* content) { return memset_content(*p, content); });
}

extern "C" CUresult cuGraphAddHostNode(CUgraphNode* out, CUgraph graph,
                                       const CUgraphNode* dependencies, size_t count,
                                       const CUDA_HOST_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(out, graph, dependencies, count,
             [&](Context&, NodeContent* content) { return host_content(*p, content); });
}
extern "C" CUresult cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS* out) {
  return with_content<HostOperation>(node, [&](GraphNode&, HostOperation& host) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = {host.function, host.data};
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<HostOperation>(
      node, [&](Context&, NodeContent* content) { return host_content(*p, content); });
}

extern "C" CUresult cuGraphAddChildGraphNode(CUgraphNode* out, CUgraph graph,
                                             const CUgraphNode* dependencies, size_t count,
                                             CUgraph child) {
  return add(out, graph, dependencies, count,
             [&](Context&, NodeContent* content) { return child_content(child, content); });
}
extern "C" CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph* out) {
  return with_content<ChildContent>(node, [&](GraphNode&, ChildContent& child) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = child.graph->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphAddEmptyNode(CUgraphNode* out, CUgraph graph,
                                        const CUgraphNode* dependencies, size_t count) {
  return add(out, graph, dependencies, count, [](Context&, NodeContent* content) {
    *content = EmptyContent{};
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphAddEventRecordNode(CUgraphNode* out, CUgraph graph,
                                              const CUgraphNode* dependencies, size_t count,
                                              CUevent event) {
  return add(out, graph, dependencies, count,
             [&](Context&, NodeContent* content) { return record_content(event, content); });
}
extern "C" CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode node, CUevent* out) {
  return with_content<RecordContent>(node, [&](GraphNode&, RecordContent& c) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = c.event->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent event) {
  return set<RecordContent>(
      node, [&](Context&, NodeContent* content) { return record_content(event, content); });
}

extern "C" CUresult cuGraphAddEventWaitNode(CUgraphNode* out, CUgraph graph,
                                            const CUgraphNode* dependencies, size_t count,
                                            CUevent event) {
  return add(out, graph, dependencies, count,
             [&](Context&, NodeContent* content) { return wait_content(event, content); });
}
extern "C" CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode node, CUevent* out) {
  return with_content<WaitContent>(node, [&](GraphNode&, WaitContent& c) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = c.event->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent event) {
  return set<WaitContent>(
      node, [&](Context&, NodeContent* content) { return wait_content(event, content); });
}

extern "C" CUresult cuGraphAddBatchMemOpNode(CUgraphNode* out, CUgraph graph,
                                             const CUgraphNode* dependencies, size_t count,
                                             const CUDA_BATCH_MEM_OP_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(out, graph, dependencies, count, [&](Context& context, NodeContent* content) {
    return value_content(context, *p, content);
  });
}
extern "C" CUresult cuGraphBatchMemOpNodeGetParams(CUgraphNode node,
                                                   CUDA_BATCH_MEM_OP_NODE_PARAMS* out) {
  return with_content<ValueContent>(node, [&](GraphNode&, ValueContent& c) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = {nullptr, static_cast<unsigned>(c.parameters.size()), c.parameters.data(), 0};
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphBatchMemOpNodeSetParams(CUgraphNode node,
                                                   const CUDA_BATCH_MEM_OP_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return set<ValueContent>(node, [&](Context& context, NodeContent* content) {
    return value_content(context, *p, content);
  });
}

extern "C" CUresult cuGraphAddMemAllocNode(CUgraphNode* out, CUgraph graph,
                                           const CUgraphNode* dependencies, size_t count,
                                           CUDA_MEM_ALLOC_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(out, graph, dependencies, count,
             [&](Context&, NodeContent* content) { return alloc_content(p, content); });
}
extern "C" CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node,
                                                 CUDA_MEM_ALLOC_NODE_PARAMS* out) {
  return with_content<AllocContent>(node, [&](GraphNode&, AllocContent& c) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = c.parameters;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphAddMemFreeNode(CUgraphNode* out, CUgraph graph,
                                          const CUgraphNode* dependencies, size_t count,
                                          CUdeviceptr base) {
  return add(out, graph, dependencies, count, [&](Context&, NodeContent* content) {
    *content = FreeContent{base};
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr* out) {
  return with_content<FreeContent>(node, [&](GraphNode&, FreeContent& c) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = c.base;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphAddNode_v2(CUgraphNode* out, CUgraph graph,
                                      const CUgraphNode* dependencies, const CUgraphEdgeData*,
                                      size_t count, CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(out, graph, dependencies, count, [&](Context& context, NodeContent* content) {
    return any_content(context, p, content);
  });
}
extern "C" CUresult cuGraphAddNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* dependencies,
                                   size_t count, CUgraphNodeParams* p) {
  return cuGraphAddNode_v2(out, graph, dependencies, nullptr, count, p);
}
extern "C" CUresult cuGraphNodeSetParams(CUgraphNode handle, CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return with_context([&](Context& context) -> CUresult {
    return with_node(handle, [&](GraphNode& node) -> CUresult {
      if (node.type() != p->type) return CUDA_ERROR_INVALID_VALUE;
      NodeContent content;
      if (CUresult r = any_content(context, p, &content); r != CUDA_SUCCESS) return r;
      node.content = std::move(content);
      return CUDA_SUCCESS;
    });
  });
}
