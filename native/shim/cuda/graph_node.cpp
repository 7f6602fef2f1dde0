// Nodes of every kind: added to graphs, their parameters asked for and changed.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "generated/shim_api.hpp"
#include "shim/cuda/graph_content.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

void keep(Graph* graph, const NodeContent& content) {
  graph->has_host_parts |= content.has_host_parts();
  if (content.copy != nullptr) graph->keeps.push_back(content.copy);
}

// A child's host parts are the node's graph's as well.
void keep_child(Graph* graph, const CUgraphNodeParams& given) {
  if (given.type != CU_GRAPH_NODE_TYPE_GRAPH) return;
  const Graph* child = find(given.graph.graph);
  graph->has_host_parts |= child->has_host_parts;
  graph->keeps.insert(graph->keeps.end(), child->keeps.begin(), child->keeps.end());
}

CUresult add(CUgraphNode* out, CUgraph hGraph, const CUgraphNode* dependencies,
             const CUgraphEdgeData* edges, size_t count, CUgraphNodeParams* given) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Graph* graph = find(hGraph);
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<uint64_t> after;
  CUresult result = node_ids(graph, dependencies, count, &after);
  NodeContent content;
  if (result == CUDA_SUCCESS) result = read_content(context, *given, &content);
  if (result != CUDA_SUCCESS) return result;
  wire::command::GraphAddNode command;
  command.graph = graph->id();
  command.dependencies = after;
  if (edges != nullptr) command.edges = std::as_bytes(std::span(edges, count));
  command.content = content.bytes();
  command.arguments = content.arguments;
  client::Answer<wire::command::GraphAddNode> answer;
  result = call(context, command, &answer);
  if (result != CUDA_SUCCESS) return result;
  Node* node = name_node(graph, answer.reply.node);
  if (node == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  keep(graph, content);
  keep_child(graph, *given);
  for (const uint64_t id : answer.reply.graphs) {
    Graph* inside = name_inside(node, id);
    if (inside == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    node->handles.push_back(handle(inside));
  }
  if (given->type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
    given->conditional.phGraph_out = node->handles.data();
  } else if (given->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
    given->alloc.dptr = answer.reply.address;
    keep_memory(graph, find_device(given->alloc.poolProps.location.id), answer.reply.address,
                given->alloc.bytesize);
  }
  *out = handle(node);
  return CUDA_SUCCESS;
}

CUresult set(CUgraphNode hNode, const CUgraphNodeParams& given) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const Node* node = find(hNode);
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeContent content;
  CUresult result = read_content(context, given, &content);
  if (result != CUDA_SUCCESS) return result;
  wire::command::NodeSetParams command;
  command.node = node->id;
  command.content = content.bytes();
  command.arguments = content.arguments;
  client::Answer<wire::command::NodeSetParams> answer;
  result = call(context, command, &answer);
  if (result == CUDA_SUCCESS) keep(node->graph, content);
  return result;
}

// The parameters of a node of this kind.
CUresult get(CUgraphNode hNode, CUgraphNodeType type, CUgraphNodeParams* out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Node* node = find(hNode);
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = read_params(node, out);
  if (result != CUDA_SUCCESS) return result;
  return out->type == type ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUgraphNodeParams of_type(CUgraphNodeType type) {
  CUgraphNodeParams params{};
  params.type = type;
  return params;
}

}  // namespace

CUgraphNodeParams kernel_params(const CUDA_KERNEL_NODE_PARAMS& given) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_KERNEL);
  params.kernel = {given.func,         given.gridDimX,  given.gridDimY,  given.gridDimZ,
                   given.blockDimX,    given.blockDimY, given.blockDimZ, given.sharedMemBytes,
                   given.kernelParams, given.extra,     given.kern,      given.ctx};
  return params;
}

CUgraphNodeParams kernel_params(const CUDA_KERNEL_NODE_PARAMS_v1& given) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_KERNEL);
  params.kernel = {given.func,         given.gridDimX,  given.gridDimY,  given.gridDimZ,
                   given.blockDimX,    given.blockDimY, given.blockDimZ, given.sharedMemBytes,
                   given.kernelParams, given.extra,     nullptr,         nullptr};
  return params;
}

CUgraphNodeParams copy_params(const CUDA_MEMCPY3D& given) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_MEMCPY);
  params.memcpy.copyParams = given;
  return params;
}

CUgraphNodeParams fill_params(const CUDA_MEMSET_NODE_PARAMS& given) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_MEMSET);
  params.memset = {given.dst,   given.pitch,  given.value, given.elementSize,
                   given.width, given.height, nullptr};
  return params;
}

CUgraphNodeParams host_params(const CUDA_HOST_NODE_PARAMS& given) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_HOST);
  params.host.fn = given.fn;
  params.host.userData = given.userData;
  return params;
}

CUgraphNodeParams child_params(CUgraph given) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_GRAPH);
  params.graph.graph = given;
  return params;
}

CUgraphNodeParams event_params(CUgraphNodeType type, CUevent given) {
  CUgraphNodeParams params = of_type(type);
  (type == CU_GRAPH_NODE_TYPE_EVENT_RECORD ? params.eventRecord.event : params.eventWait.event) =
      given;
  return params;
}

CUgraphNodeParams operations_params(const CUDA_BATCH_MEM_OP_NODE_PARAMS& given) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP);
  params.memOp = {given.ctx, given.count, given.paramArray, given.flags};
  return params;
}

// ---- of any kind

CUresult cuGraphAddNode_v2(CUgraphNode* phGraphNode, CUgraph hGraph,
                           const CUgraphNode* dependencies, const CUgraphEdgeData* dependencyData,
                           size_t numDependencies, CUgraphNodeParams* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(phGraphNode, hGraph, dependencies, dependencyData, numDependencies, nodeParams);
}
CUresult cuGraphAddNode(CUgraphNode* phGraphNode, CUgraph hGraph, const CUgraphNode* dependencies,
                        size_t numDependencies, CUgraphNodeParams* nodeParams) {
  return shim::cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, nullptr, numDependencies,
                                 nodeParams);
}
CUresult cuGraphNodeSetParams(CUgraphNode hNode, CUgraphNodeParams* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE : set(hNode, *nodeParams);
}

// ---- kernels

CUresult cuGraphAddKernelNode_v2(CUgraphNode* phGraphNode, CUgraph hGraph,
                                 const CUgraphNode* dependencies, size_t numDependencies,
                                 const CUDA_KERNEL_NODE_PARAMS* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = kernel_params(*nodeParams);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphAddKernelNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                              const CUgraphNode* dependencies, size_t numDependencies,
                              const CUDA_KERNEL_NODE_PARAMS_v1* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = kernel_params(*nodeParams);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_KERNEL, &params);
  if (result != CUDA_SUCCESS) return result;
  const CUDA_KERNEL_NODE_PARAMS_v3& kernel = params.kernel;
  *nodeParams = {kernel.func,         kernel.gridDimX,  kernel.gridDimY,  kernel.gridDimZ,
                 kernel.blockDimX,    kernel.blockDimY, kernel.blockDimZ, kernel.sharedMemBytes,
                 kernel.kernelParams, nullptr,          nullptr,          kernel.ctx};
  return CUDA_SUCCESS;
}
CUresult cuGraphKernelNodeGetParams(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS_v1* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_KERNEL_NODE_PARAMS kernel;
  const CUresult result = shim::cuGraphKernelNodeGetParams_v2(hNode, &kernel);
  if (result != CUDA_SUCCESS) return result;
  *nodeParams = {kernel.func,         kernel.gridDimX,  kernel.gridDimY,  kernel.gridDimZ,
                 kernel.blockDimX,    kernel.blockDimY, kernel.blockDimZ, kernel.sharedMemBytes,
                 kernel.kernelParams, nullptr};
  return CUDA_SUCCESS;
}
CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode hNode,
                                       const CUDA_KERNEL_NODE_PARAMS* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE : set(hNode, kernel_params(*nodeParams));
}
CUresult cuGraphKernelNodeSetParams(CUgraphNode hNode,
                                    const CUDA_KERNEL_NODE_PARAMS_v1* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE : set(hNode, kernel_params(*nodeParams));
}

CUresult cuGraphKernelNodeGetAttribute(CUgraphNode hNode, CUkernelNodeAttrID attr,
                                       CUkernelNodeAttrValue* value_out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Node* node = find(hNode);
  if (node == nullptr || value_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::NodeGetAttribute> answer;
  const CUresult result =
      call(node->graph->context,
           wire::command::NodeGetAttribute{.node = node->id, .attribute = uint32_t(attr)}, &answer);
  if (result != CUDA_SUCCESS) return result;
  if (answer.reply.value.size() != sizeof *value_out) return CUDA_ERROR_UNKNOWN;
  std::memcpy(value_out, answer.reply.value.data(), sizeof *value_out);
  return CUDA_SUCCESS;
}
CUresult cuGraphKernelNodeSetAttribute(CUgraphNode hNode, CUkernelNodeAttrID attr,
                                       const CUkernelNodeAttrValue* value) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Node* node = find(hNode);
  if (node == nullptr || value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::NodeSetAttribute> answer;
  return call(node->graph->context,
              wire::command::NodeSetAttribute{.node = node->id,
                                              .attribute = uint32_t(attr),
                                              .value = std::as_bytes(std::span(value, 1))},
              &answer);
}
CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode dst, CUgraphNode src) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Node* to = find(dst);
  const Node* from = find(src);
  if (to == nullptr || from == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::NodeCopyAttributes> answer;
  return call(to->graph->context, wire::command::NodeCopyAttributes{.to = to->id, .from = from->id},
              &answer);
}

// ---- copies and fills

CUresult cuGraphAddMemcpyNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                              const CUgraphNode* dependencies, size_t numDependencies,
                              const CUDA_MEMCPY3D* copyParams, CUcontext) {
  if (copyParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = copy_params(*copyParams);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphMemcpyNodeGetParams(CUgraphNode hNode, CUDA_MEMCPY3D* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_MEMCPY, &params);
  if (result == CUDA_SUCCESS) *nodeParams = params.memcpy.copyParams;
  return result;
}
CUresult cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE : set(hNode, copy_params(*nodeParams));
}

CUresult cuGraphAddMemsetNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                              const CUgraphNode* dependencies, size_t numDependencies,
                              const CUDA_MEMSET_NODE_PARAMS* memsetParams, CUcontext) {
  if (memsetParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = fill_params(*memsetParams);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphMemsetNodeGetParams(CUgraphNode hNode, CUDA_MEMSET_NODE_PARAMS* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_MEMSET, &params);
  const CUDA_MEMSET_NODE_PARAMS_v2& fill = params.memset;
  if (result == CUDA_SUCCESS) {
    *nodeParams = {fill.dst, fill.pitch, fill.value, fill.elementSize, fill.width, fill.height};
  }
  return result;
}
CUresult cuGraphMemsetNodeSetParams(CUgraphNode hNode, const CUDA_MEMSET_NODE_PARAMS* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE : set(hNode, fill_params(*nodeParams));
}

// ---- host functions, graphs in graphs, nothing

CUresult cuGraphAddHostNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                            const CUgraphNode* dependencies, size_t numDependencies,
                            const CUDA_HOST_NODE_PARAMS* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = host_params(*nodeParams);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphHostNodeGetParams(CUgraphNode hNode, CUDA_HOST_NODE_PARAMS* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_HOST, &params);
  if (result == CUDA_SUCCESS) *nodeParams = {params.host.fn, params.host.userData};
  return result;
}
CUresult cuGraphHostNodeSetParams(CUgraphNode hNode, const CUDA_HOST_NODE_PARAMS* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE : set(hNode, host_params(*nodeParams));
}

CUresult cuGraphAddChildGraphNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                                  const CUgraphNode* dependencies, size_t numDependencies,
                                  CUgraph childGraph) {
  CUgraphNodeParams params = child_params(childGraph);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode hNode, CUgraph* phGraph) {
  if (phGraph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_GRAPH, &params);
  if (result == CUDA_SUCCESS) *phGraph = params.graph.graph;
  return result;
}

CUresult cuGraphAddEmptyNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                             const CUgraphNode* dependencies, size_t numDependencies) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_EMPTY);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}

// ---- events

CUresult cuGraphAddEventRecordNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                                   const CUgraphNode* dependencies, size_t numDependencies,
                                   CUevent event) {
  CUgraphNodeParams params = event_params(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode hNode, CUevent* event_out) {
  if (event_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_EVENT_RECORD, &params);
  if (result == CUDA_SUCCESS) *event_out = params.eventRecord.event;
  return result;
}
CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode hNode, CUevent event) {
  return set(hNode, event_params(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event));
}
CUresult cuGraphAddEventWaitNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                                 const CUgraphNode* dependencies, size_t numDependencies,
                                 CUevent event) {
  CUgraphNodeParams params = event_params(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode hNode, CUevent* event_out) {
  if (event_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_WAIT_EVENT, &params);
  if (result == CUDA_SUCCESS) *event_out = params.eventWait.event;
  return result;
}
CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode hNode, CUevent event) {
  return set(hNode, event_params(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event));
}

// ---- memory

CUresult cuGraphAddBatchMemOpNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                                  const CUgraphNode* dependencies, size_t numDependencies,
                                  const CUDA_BATCH_MEM_OP_NODE_PARAMS* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = operations_params(*nodeParams);
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphBatchMemOpNodeGetParams(CUgraphNode hNode,
                                        CUDA_BATCH_MEM_OP_NODE_PARAMS* nodeParams_out) {
  if (nodeParams_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, &params);
  if (result == CUDA_SUCCESS) {
    *nodeParams_out = {params.memOp.ctx, params.memOp.count, params.memOp.paramArray,
                       params.memOp.flags};
  }
  return result;
}
CUresult cuGraphBatchMemOpNodeSetParams(CUgraphNode hNode,
                                        const CUDA_BATCH_MEM_OP_NODE_PARAMS* nodeParams) {
  return nodeParams == nullptr ? CUDA_ERROR_INVALID_VALUE
                               : set(hNode, operations_params(*nodeParams));
}

CUresult cuGraphAddMemAllocNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                                const CUgraphNode* dependencies, size_t numDependencies,
                                CUDA_MEM_ALLOC_NODE_PARAMS* nodeParams) {
  if (nodeParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_MEM_ALLOC);
  params.alloc.poolProps = nodeParams->poolProps;
  params.alloc.accessDescs = nodeParams->accessDescs;
  params.alloc.accessDescCount = nodeParams->accessDescCount;
  params.alloc.bytesize = nodeParams->bytesize;
  const CUresult result = add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
  if (result == CUDA_SUCCESS) nodeParams->dptr = params.alloc.dptr;
  return result;
}
CUresult cuGraphMemAllocNodeGetParams(CUgraphNode hNode, CUDA_MEM_ALLOC_NODE_PARAMS* params_out) {
  if (params_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_MEM_ALLOC, &params);
  if (result == CUDA_SUCCESS) {
    *params_out = {params.alloc.poolProps, nullptr, 0, params.alloc.bytesize, params.alloc.dptr};
  }
  return result;
}
CUresult cuGraphAddMemFreeNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                               const CUgraphNode* dependencies, size_t numDependencies,
                               CUdeviceptr dptr) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_MEM_FREE);
  params.free.dptr = dptr;
  return add(phGraphNode, hGraph, dependencies, nullptr, numDependencies, &params);
}
CUresult cuGraphMemFreeNodeGetParams(CUgraphNode hNode, CUdeviceptr* dptr_out) {
  if (dptr_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params;
  const CUresult result = get(hNode, CU_GRAPH_NODE_TYPE_MEM_FREE, &params);
  if (result == CUDA_SUCCESS) *dptr_out = params.free.dptr;
  return result;
}

}  // namespace outboard::shim
