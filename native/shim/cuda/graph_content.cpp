// Reading and writing the parameters of nodes.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/graph_content.hpp"

#include <algorithm>
#include <cstring>

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/host_functions.hpp"
#include "shim/cuda/parameters.hpp"

namespace outboard::shim {
namespace {

// Where a handle or a pointer stands, its id travels.
template <typename Handle>
Handle as_handle(uint64_t id) {
  return reinterpret_cast<Handle>(id);
}
template <typename Handle>
uint64_t id_in(Handle value) {
  return reinterpret_cast<uint64_t>(value);
}

CUresult read_kernel(Context* context, const CUDA_KERNEL_NODE_PARAMS_v3& given, NodeContent* out) {
  const void* value = given.func != nullptr ? static_cast<const void*>(given.func) : given.kern;
  const Function* function =
      function_in(value, given.ctx != nullptr ? find(given.ctx) : thread_state.current);
  if (function == nullptr || function->module->server != context->server) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::byte* buffer = nullptr;
  size_t bytes = 0;  // may be less than what the kernel takes
  if (given.kernelParams == nullptr && function->parameter_count != 0) {
    if (given.extra == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = read_extra(given.extra, &buffer, &bytes);
    if (result != CUDA_SUCCESS) return result;
    if (buffer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  }
  out->arguments.assign(function->parameters_bytes, std::byte{0});
  if (buffer != nullptr) {
    std::memcpy(out->arguments.data(), buffer, std::min(bytes, out->arguments.size()));
  } else {
    for (uint32_t i = 0; i < function->parameter_count; ++i) {
      const Function::Parameter& parameter = function->parameters[i];
      std::memcpy(out->arguments.data() + parameter.offset, given.kernelParams[i], parameter.bytes);
    }
  }
  if (!visible_window.empty()) {
    Stream* side = side_stream(context);
    if (side == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = Reach(side, true).add_packed(function, out->arguments.data());
    if (result != CUDA_SUCCESS) return result;
  }
  auto& kernel = out->params.kernel;
  kernel.func = as_handle<CUfunction>(function->head.id());
  kernel.gridDimX = given.gridDimX;
  kernel.gridDimY = given.gridDimY;
  kernel.gridDimZ = given.gridDimZ;
  kernel.blockDimX = given.blockDimX;
  kernel.blockDimY = given.blockDimY;
  kernel.blockDimZ = given.blockDimZ;
  kernel.sharedMemBytes = given.sharedMemBytes;
  return CUDA_SUCCESS;
}

// An array's id travels in the place of its handle.
CUresult read_array(CUmemorytype type, CUarray* value) {
  if (type != CU_MEMORYTYPE_ARRAY) {
    *value = nullptr;
    return CUDA_SUCCESS;
  }
  const Array* array = find(*value);
  if (array == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *value = as_handle<CUarray>(array->head.id());
  return CUDA_SUCCESS;
}

CUresult read_copy(Context* context, const CUDA_MEMCPY3D& given, NodeContent* out) {
  CUDA_MEMCPY3D& copy = out->params.memcpy.copyParams;
  copy = given;
  CUresult result = replace_host(context, &copy, &out->copy);
  if (result == CUDA_SUCCESS) result = read_array(copy.srcMemoryType, &copy.srcArray);
  if (result == CUDA_SUCCESS) result = read_array(copy.dstMemoryType, &copy.dstArray);
  return result;
}

CUarray write_array(CUmemorytype type, CUarray value) {
  return type == CU_MEMORYTYPE_ARRAY ? reinterpret_cast<CUarray>(arrays.find_id(id_in(value)))
                                     : nullptr;
}

CUresult read_fill(const CUDA_MEMSET_NODE_PARAMS_v2& given, NodeContent* out) {
  auto& fill = out->params.memset;
  fill.dst = given.dst;
  fill.pitch = given.height > 1 ? given.pitch : 0;
  fill.value = given.value;
  fill.elementSize = given.elementSize;
  fill.width = given.width;
  fill.height = given.height;
  return CUDA_SUCCESS;
}

CUresult read_host(const CUDA_HOST_NODE_PARAMS_v2& given, NodeContent* out) {
  if (given.fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  out->function = register_function(given.fn, given.userData);
  if (out->function == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  out->params.host.userData = as_handle<void*>(out->function);
  return CUDA_SUCCESS;
}

CUresult read_event(CUevent given, CUevent* out) {
  const Event* event = find(given);
  if (event == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = as_handle<CUevent>(event->head.id());
  return CUDA_SUCCESS;
}

CUresult read_allocation(const CUDA_MEM_ALLOC_NODE_PARAMS_v2& given, NodeContent* out) {
  const Device* device = find_device(given.poolProps.location.id);
  if (given.bytesize == 0 || device == nullptr ||
      given.poolProps.allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
      given.poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto& alloc = out->params.alloc;
  alloc.poolProps.allocType = given.poolProps.allocType;
  alloc.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, static_cast<int>(device->index)};
  alloc.bytesize = given.bytesize;
  return CUDA_SUCCESS;
}

CUresult read_operations(const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2& given, NodeContent* out) {
  constexpr unsigned most = 256;
  if (given.paramArray == nullptr || given.count == 0 || given.count > most || given.flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto bytes = std::as_bytes(std::span(given.paramArray, given.count));
  out->arguments.assign(bytes.begin(), bytes.end());
  out->params.memOp.count = given.count;
  return CUDA_SUCCESS;
}

CUresult write_kernel(Node* node, CUgraphNodeParams* out) {
  Function* function = functions.find_id(id_in(out->kernel.func));
  if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  out->kernel.func = reinterpret_cast<CUfunction>(function);
  out->kernel.ctx = handle(node->graph->context);
  node->pointers.clear();
  for (uint32_t i = 0; i < function->parameter_count; ++i) {
    node->pointers.push_back(node->arguments.data() + function->parameters[i].offset);
  }
  out->kernel.kernelParams = node->pointers.empty() ? nullptr : node->pointers.data();
  return CUDA_SUCCESS;
}

}  // namespace

CUresult read_content(Context* context, const CUgraphNodeParams& given, NodeContent* out) {
  out->params = {};
  out->params.type = given.type;
  switch (given.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return read_kernel(context, given.kernel, out);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return read_copy(context, given.memcpy.copyParams, out);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      return read_fill(given.memset, out);
    case CU_GRAPH_NODE_TYPE_HOST:
      return read_host(given.host, out);
    case CU_GRAPH_NODE_TYPE_GRAPH: {
      const Graph* child = find(given.graph.graph);
      if (child == nullptr) return CUDA_ERROR_INVALID_VALUE;
      if (given.graph.ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE) {
        return CUDA_ERROR_NOT_SUPPORTED;
      }
      out->params.graph.graph = as_handle<CUgraph>(child->id());
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_EMPTY:
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
      return read_event(given.eventWait.event, &out->params.eventWait.event);
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return read_event(given.eventRecord.event, &out->params.eventRecord.event);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      return read_allocation(given.alloc, out);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      out->params.free.dptr = given.free.dptr;
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      return read_operations(given.memOp, out);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      out->params.conditional.handle = given.conditional.handle;
      out->params.conditional.type = given.conditional.type;
      out->params.conditional.size = given.conditional.size;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

CUresult write_content(Node* node, std::span<const std::byte> content,
                       std::span<const std::byte> arguments, CUgraphNodeParams* out) {
  if (content.size() != sizeof *out) return CUDA_ERROR_UNKNOWN;
  std::memcpy(out, content.data(), sizeof *out);
  node->arguments.assign(arguments.begin(), arguments.end());
  switch (out->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return write_kernel(node, out);
    case CU_GRAPH_NODE_TYPE_MEMCPY: {
      CUDA_MEMCPY3D& copy = out->memcpy.copyParams;
      auto host = find_copy(copy.srcDevice);
      if (host == nullptr) host = find_copy(copy.dstDevice);
      if (host != nullptr) {
        copy = host->params;
        return CUDA_SUCCESS;
      }
      copy.srcArray = write_array(copy.srcMemoryType, copy.srcArray);
      copy.dstArray = write_array(copy.dstMemoryType, copy.dstArray);
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_HOST: {
      CUDA_HOST_NODE_PARAMS host{};
      if (!find_registered(id_in(out->host.userData), &host)) return CUDA_ERROR_INVALID_VALUE;
      out->host.fn = host.fn;
      out->host.userData = host.userData;
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_GRAPH: {
      Graph* inside = name_inside(node, id_in(out->graph.graph));
      if (inside == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
      out->graph.graph = handle(inside);
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
      out->eventWait.event = handle(events.find_id(id_in(out->eventWait.event)));
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      out->eventRecord.event = handle(events.find_id(id_in(out->eventRecord.event)));
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC: {
      const Device* own = node->graph->context->device;
      for (int i = 0; i < device_count; ++i) {
        if (devices[i]->server != own->server ||
            static_cast<int>(devices[i]->index) != out->alloc.poolProps.location.id) {
          continue;
        }
        out->alloc.poolProps.location.id = devices[i]->ordinal;
        break;
      }
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      out->memOp.ctx = handle(node->graph->context);
      out->memOp.paramArray = reinterpret_cast<CUstreamBatchMemOpParams*>(node->arguments.data());
      return CUDA_SUCCESS;
    default:
      return CUDA_SUCCESS;
  }
}

CUresult read_params(Node* node, CUgraphNodeParams* out) {
  client::Answer<wire::command::NodeGetParams> answer;
  const CUresult result =
      call(node->graph->context, wire::command::NodeGetParams{.node = node->id}, &answer);
  if (result != CUDA_SUCCESS) return result;
  return write_content(node, answer.reply.content, answer.reply.arguments, out);
}

}  // namespace outboard::shim
