// Entry points about managed memory: host memory, wherever a program would have it.
// SPDX-License-Identifier: Apache-2.0
#include "guard.hpp"
#include "memory_map.hpp"
#include "submit.hpp"

using namespace softgpu;

namespace {

bool is_managed(CUdeviceptr address, size_t bytes) {
  auto found = MemoryMap::get().find(address);
  return bytes != 0 && found && found->kind == MemoryKind::managed &&
         bytes <= found->size - (address - found->base);
}

CUresult check_place(CUmemLocation place) {
  if (place.type == CU_MEM_LOCATION_TYPE_DEVICE) {
    return Driver::get().device(place.id) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
  }
  bool host = place.type >= CU_MEM_LOCATION_TYPE_HOST &&
              place.type <= CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
  return host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUmemLocation place_of(CUdevice device) {
  if (device == CU_DEVICE_CPU) return {CU_MEM_LOCATION_TYPE_HOST, 0};
  return {CU_MEM_LOCATION_TYPE_DEVICE, device};
}

/// Hints that are ordered on a stream: `check()` says whether they make sense.
template <class Check>
CUresult hint(CUstream handle, Check&& check) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    return check();
  });
}

CUresult check_ranges(const CUdeviceptr* addresses, const size_t* sizes, size_t count,
                      unsigned long long flags) {
  if (addresses == nullptr || sizes == nullptr || count == 0 || flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) {
    if (!is_managed(addresses[i], sizes[i])) return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult check_places(const CUmemLocation* places, const size_t* firsts, size_t places_count,
                      size_t count) {
  if (places == nullptr || firsts == nullptr || places_count == 0 || places_count > count ||
      firsts[0] != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < places_count; ++i) {
    if (CUresult r = check_place(places[i]); r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuMemAllocManaged(CUdeviceptr* out, size_t bytes, unsigned int flags) {
  return with_context_uncaptured([&](Context& context) {
    if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return allocate_host(context, reinterpret_cast<void**>(out), bytes, 0, MemoryKind::managed);
  });
}

extern "C" CUresult cuStreamAttachMemAsync(CUstream handle, CUdeviceptr pointer, size_t bytes,
                                           unsigned int flags) {
  return hint(handle, [&] {
    bool known = flags == CU_MEM_ATTACH_GLOBAL || flags == CU_MEM_ATTACH_HOST ||
                 flags == CU_MEM_ATTACH_SINGLE;
    return known && is_managed(pointer, bytes != 0 ? bytes : 1) ? CUDA_SUCCESS
                                                                : CUDA_ERROR_INVALID_VALUE;
  });
}

extern "C" CUresult cuMemAdvise_v2(CUdeviceptr pointer, size_t bytes, CUmem_advise advice,
                                   CUmemLocation place) {
  return with_driver([&]() -> CUresult {
    if (!is_managed(pointer, bytes) || advice < CU_MEM_ADVISE_SET_READ_MOSTLY ||
        advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    bool placed = advice >= CU_MEM_ADVISE_SET_PREFERRED_LOCATION &&
                  advice != CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION;
    return placed ? check_place(place) : CUDA_SUCCESS;
  });
}
extern "C" CUresult cuMemAdvise(CUdeviceptr pointer, size_t bytes, CUmem_advise advice,
                                CUdevice device) {
  return cuMemAdvise_v2(pointer, bytes, advice, place_of(device));
}

extern "C" CUresult cuMemPrefetchAsync_v2(CUdeviceptr pointer, size_t bytes, CUmemLocation place,
                                          unsigned int flags, CUstream handle) {
  return hint(handle, [&] {
    return is_managed(pointer, bytes) && flags == 0 ? check_place(place) : CUDA_ERROR_INVALID_VALUE;
  });
}
extern "C" CUresult cuMemPrefetchAsync(CUdeviceptr pointer, size_t bytes, CUdevice device,
                                       CUstream handle) {
  return cuMemPrefetchAsync_v2(pointer, bytes, place_of(device), 0, handle);
}

extern "C" CUresult cuMemPrefetchBatchAsync(CUdeviceptr* pointers, size_t* sizes, size_t count,
                                            CUmemLocation* places, size_t* firsts,
                                            size_t places_count, unsigned long long flags,
                                            CUstream handle) {
  return hint(handle, [&] {
    CUresult r = check_ranges(pointers, sizes, count, flags);
    return r == CUDA_SUCCESS ? check_places(places, firsts, places_count, count) : r;
  });
}
extern "C" CUresult cuMemDiscardBatchAsync(CUdeviceptr* pointers, size_t* sizes, size_t count,
                                           unsigned long long flags, CUstream handle) {
  return hint(handle, [&] { return check_ranges(pointers, sizes, count, flags); });
}
extern "C" CUresult cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr* pointers, size_t* sizes,
                                                      size_t count, CUmemLocation* places,
                                                      size_t* firsts, size_t places_count,
                                                      unsigned long long flags, CUstream handle) {
  return cuMemPrefetchBatchAsync(pointers, sizes, count, places, firsts, places_count, flags,
                                 handle);
}
