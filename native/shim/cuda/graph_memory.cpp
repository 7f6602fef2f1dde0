// Memory that graphs allocate.
// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/graphs.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

/// One allocation: the program's address as long as somebody keeps this.
struct GraphRange {
  GraphRange(Device* of, uint64_t place, size_t size) : device(of), base(place), bytes(size) {
    const uint64_t used = device->graph_memory.fetch_add(bytes) + bytes;
    uint64_t high = device->graph_memory_high.load();
    while (used > high && !device->graph_memory_high.compare_exchange_weak(high, used)) {
    }
  }
  ~GraphRange() {
    addresses().remove(base, MemoryKind::graph, MemoryKind::graph, nullptr);
    device->graph_memory.fetch_sub(bytes);
  }
  GraphRange(const GraphRange&) = delete;
  GraphRange& operator=(const GraphRange&) = delete;

  Device* device;
  uint64_t base;
  size_t bytes;
};

CUresult find_attribute(CUdevice ordinal, const void* value, Device** device) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *device = find_device(ordinal);
  if (*device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  return value != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

void keep_memory(Graph* graph, Device* device, uint64_t address, size_t bytes) {
  Range range;
  range.base = address;
  range.bytes = bytes;
  range.context = graph->context;
  range.device = device;
  range.kind = MemoryKind::graph;
  addresses().add(range);
  graph->keeps.push_back(std::make_shared<GraphRange>(device, address, bytes));
}

// It goes with its graph, so that there never is any that nobody uses.
CUresult cuDeviceGraphMemTrim(CUdevice device) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  return find_device(device) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void* value) {
  Device* found = nullptr;
  if (const CUresult result = find_attribute(device, value, &found); result != CUDA_SUCCESS)
    return result;
  cuuint64_t& out = *static_cast<cuuint64_t*>(value);
  switch (attr) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT:
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT:
      out = found->graph_memory.load();
      return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH:
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH:
      out = found->graph_memory_high.load();
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void* value) {
  Device* found = nullptr;
  if (const CUresult result = find_attribute(device, value, &found); result != CUDA_SUCCESS)
    return result;
  const bool high =
      attr == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH || attr == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH;
  if (!high || *static_cast<const cuuint64_t*>(value) != 0) return CUDA_ERROR_INVALID_VALUE;
  found->graph_memory_high.store(found->graph_memory.load());
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
