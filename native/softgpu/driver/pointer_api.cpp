// Entry points that tell what lies at an address.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "guard.hpp"
#include "memory_map.hpp"
#include "memory_pool.hpp"
#include "physical_memory.hpp"

using namespace softgpu;

namespace {

template <class T>
CUresult put(void* out, const T& value) {
  std::memcpy(out, &value, sizeof value);
  return CUDA_SUCCESS;
}

/// Which handle types the memory could be exported as.
unsigned handle_types(const Allocation& a) {
  if (a.pool) return a.pool->shareable ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : 0;
  return a.physical ? static_cast<unsigned>(a.physical->properties.requestedHandleTypes) : 0;
}

CUresult attribute_of(const Allocation& a, CUpointer_attribute attribute, uint64_t pointer,
                      void* out) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return put(out, a.context);
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return put(out, static_cast<unsigned>(a.host() && a.kind != MemoryKind::managed
                                                ? CU_MEMORYTYPE_HOST
                                                : CU_MEMORYTYPE_DEVICE));
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return put(out, static_cast<CUdeviceptr>(pointer));
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (!a.host()) return CUDA_ERROR_INVALID_VALUE;
      return put(out, reinterpret_cast<void*>(pointer));
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      return put(out, static_cast<unsigned>(a.sync_memops));
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return put(out, static_cast<unsigned long long>(a.buffer_id));
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      return put(out, a.kind == MemoryKind::device && !a.imported);
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return put(out, a.kind == MemoryKind::managed);
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return put(out, false);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: {
      auto owner = find_context(a.context);
      return put(out, a.device ? a.device->ordinal : owner ? owner->device.ordinal : 0);
    }
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return put(out, static_cast<CUdeviceptr>(a.base));
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      return put(out, static_cast<size_t>(a.size));
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return put(out, true);
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      return put(out, static_cast<unsigned long long>(handle_types(a)));
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return put(out, static_cast<unsigned>(CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE));
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      return put(out, a.pool ? a.pool->handle : nullptr);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

/// What cuPointerGetAttributes answers for memory that CUDA does not know.
CUresult attribute_of_foreign(CUpointer_attribute attribute, void* out) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return put(out, 0u);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return put(out, -2);  // CU_DEVICE_INVALID
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_MAPPED:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return put(out, false);
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      return CUDA_ERROR_INVALID_VALUE;
    default:
      return put(out, uint64_t{0});
  }
}

}  // namespace

extern "C" CUresult cuPointerGetAttribute(void* out, CUpointer_attribute attribute,
                                          CUdeviceptr pointer) {
  return with_driver([&]() -> CUresult {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto found = MemoryMap::get().find(pointer);
    return found ? attribute_of(*found, attribute, pointer, out) : CUDA_ERROR_INVALID_VALUE;
  });
}

extern "C" CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute* attributes,
                                           void** out, CUdeviceptr pointer) {
  return with_driver([&]() -> CUresult {
    if (count == 0 || attributes == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto found = MemoryMap::get().find(pointer);
    for (unsigned i = 0; i < count; ++i) {
      if (out[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
      CUresult r = found ? attribute_of(*found, attributes[i], pointer, out[i])
                         : attribute_of_foreign(attributes[i], out[i]);
      // A question that does not fit the memory leaves null, and is no error here.
      if (r != CUDA_SUCCESS && attributes[i] == CU_POINTER_ATTRIBUTE_HOST_POINTER) {
        r = put(out[i], uint64_t{0});
      }
      if (r != CUDA_SUCCESS) return r;
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuPointerSetAttribute(const void* value, CUpointer_attribute attribute,
                                          CUdeviceptr pointer) {
  return with_driver([&]() -> CUresult {
    if (value == nullptr || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    unsigned wanted;
    std::memcpy(&wanted, value, sizeof wanted);
    return MemoryMap::get().set_sync_memops(pointer, wanted != 0) ? CUDA_SUCCESS
                                                                  : CUDA_ERROR_INVALID_VALUE;
  });
}
