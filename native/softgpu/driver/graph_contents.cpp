// Graph nodes as programs describe them, turned into what runs.
// SPDX-License-Identifier: Apache-2.0
#include "graph_contents.hpp"

#include "copies.hpp"
#include "function.hpp"
#include "graph_memory.hpp"
#include "launches.hpp"
#include "values.hpp"

namespace softgpu {

CUresult kernel_content(Context& context, const CUDA_KERNEL_NODE_PARAMS& p, NodeContent* out) {
  std::shared_ptr<Context> given = p.ctx ? find_context(p.ctx) : context.shared_from_this();
  if (!given) return CUDA_ERROR_INVALID_CONTEXT;
  std::shared_ptr<Function> function;
  CUresult r = p.func ? find_function(p.func, *given, &function)
                      : kernel_function(p.kern, *given, &function);
  if (r != CUDA_SUCCESS) return r;
  KernelOperation op;
  LaunchShape shape{{p.gridDimX, p.gridDimY, p.gridDimZ},
                    {p.blockDimX, p.blockDimY, p.blockDimZ},
                    p.sharedMemBytes,
                    false};
  r = launch_operation(std::move(function), shape, p.kernelParams, p.extra, &op);
  if (r == CUDA_SUCCESS) *out = std::move(op);
  return r;
}

CUresult copy_content(const CUDA_MEMCPY3D& p, NodeContent* out) {
  CopyOperation op;
  CUresult r = copy_3d(p, &op);
  if (r == CUDA_SUCCESS) *out = std::move(op);
  return r;
}

CUresult memset_content(const CUDA_MEMSET_NODE_PARAMS& p, NodeContent* out) {
  MemsetOperation op;
  CUresult r = memset_operation(p.dst, p.pitch, p.value, p.elementSize, p.width, p.height, &op);
  if (r == CUDA_SUCCESS) *out = op;
  return r;
}

CUresult host_content(const CUDA_HOST_NODE_PARAMS& p, NodeContent* out) {
  if (p.fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = HostOperation{p.fn, p.userData};
  return CUDA_SUCCESS;
}

CUresult child_content(CUgraph handle, NodeContent* out) {
  std::shared_ptr<Graph> graph = graphs().find(handle);
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  if (!graph->can_be_copied()) return CUDA_ERROR_NOT_SUPPORTED;
  std::shared_ptr<Graph> copy = graph->clone();
  copy->is_child = true;
  copy->handle = graphs().insert(copy);
  *out = ChildContent{std::move(copy)};
  return CUDA_SUCCESS;
}

CUresult record_content(CUevent handle, NodeContent* out) {
  auto event = events().find(handle);
  if (!event) return CUDA_ERROR_INVALID_VALUE;
  *out = RecordContent{std::move(event)};
  return CUDA_SUCCESS;
}

CUresult wait_content(CUevent handle, NodeContent* out) {
  auto event = events().find(handle);
  if (!event) return CUDA_ERROR_INVALID_VALUE;
  *out = WaitContent{std::move(event)};
  return CUDA_SUCCESS;
}

CUresult value_content(Context& context, const CUDA_BATCH_MEM_OP_NODE_PARAMS& p, NodeContent* out) {
  if (p.paramArray == nullptr || p.count == 0 || p.count > 256 || p.flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (unsigned i = 0; i < p.count; ++i) {
    std::optional<ValueOperation> op;
    CUresult r = value_operation(context.device, p.paramArray[i], &op);
    if (r != CUDA_SUCCESS) return r;
  }
  *out = ValueContent{{p.paramArray, p.paramArray + p.count}};
  return CUDA_SUCCESS;
}

CUresult alloc_content(CUDA_MEM_ALLOC_NODE_PARAMS* p, NodeContent* out) {
  if (p->bytesize == 0 || p->poolProps.allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
      p->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* device = Driver::get().device(p->poolProps.location.id);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  AllocContent content;
  CUresult r = graph_allocation(*default_pool(*device), p->bytesize, &content);
  if (r != CUDA_SUCCESS) return r;
  p->dptr = content.parameters.dptr;
  *out = std::move(content);
  return CUDA_SUCCESS;
}

CUresult any_content(Context& context, CUgraphNodeParams* p, NodeContent* out) {
  switch (p->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL: {
      const CUDA_KERNEL_NODE_PARAMS_v3& k = p->kernel;
      CUDA_KERNEL_NODE_PARAMS same{k.func,         k.gridDimX,  k.gridDimY,  k.gridDimZ,
                                   k.blockDimX,    k.blockDimY, k.blockDimZ, k.sharedMemBytes,
                                   k.kernelParams, k.extra,     k.kern,      k.ctx};
      return kernel_content(context, same, out);
    }
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return copy_content(p->memcpy.copyParams, out);
    case CU_GRAPH_NODE_TYPE_MEMSET: {
      const CUDA_MEMSET_NODE_PARAMS_v2& m = p->memset;
      return memset_content({m.dst, m.pitch, m.value, m.elementSize, m.width, m.height}, out);
    }
    case CU_GRAPH_NODE_TYPE_HOST:
      return host_content({p->host.fn, p->host.userData}, out);
    case CU_GRAPH_NODE_TYPE_GRAPH:
      return child_content(p->graph.graph, out);
    case CU_GRAPH_NODE_TYPE_EMPTY:
      *out = EmptyContent{};
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
      return wait_content(p->eventWait.event, out);
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return record_content(p->eventRecord.event, out);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC: {
      CUDA_MEM_ALLOC_NODE_PARAMS same{p->alloc.poolProps, p->alloc.accessDescs,
                                      p->alloc.accessDescCount, p->alloc.bytesize, 0};
      CUresult r = alloc_content(&same, out);
      p->alloc.dptr = same.dptr;
      return r;
    }
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      *out = FreeContent{p->free.dptr};
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      return value_content(
          context, {p->memOp.ctx, p->memOp.count, p->memOp.paramArray, p->memOp.flags}, out);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      return conditional_content(&p->conditional, out);
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

CUDA_KERNEL_NODE_PARAMS describe(GraphNode& node, const KernelOperation& kernel) {
  const auto& layout = kernel.function->info().params;
  node.parameter_pointers.clear();
  for (const ParamInfo& p : layout) {
    node.parameter_pointers.push_back(const_cast<std::byte*>(kernel.params.data() + p.offset));
  }
  CUDA_KERNEL_NODE_PARAMS out{};
  out.func = kernel.function->handle;
  out.gridDimX = kernel.launch.grid[0];
  out.gridDimY = kernel.launch.grid[1];
  out.gridDimZ = kernel.launch.grid[2];
  out.blockDimX = kernel.launch.block[0];
  out.blockDimY = kernel.launch.block[1];
  out.blockDimZ = kernel.launch.block[2];
  out.sharedMemBytes = kernel.launch.dynamic_shared_bytes;
  out.kernelParams = node.parameter_pointers.empty() ? nullptr : node.parameter_pointers.data();
  return out;
}

}  // namespace softgpu
