// Managed memory: host memory of ours that program and devices take turns with
// (docs/adr/0015-managed-memory.md). SPDX-License-Identifier: Apache-2.0
//
// It stays where it is, so that what a program says of where it should be is checked and has no
// effect.
#include "shim/cuda/managed_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <span>

#include "base/log.hpp"
#include "client/windows.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/host_memory.hpp"

namespace outboard::shim {
namespace {

bool is_managed(CUdeviceptr address, size_t bytes) {
  Range range;
  return bytes != 0 && addresses().find(address, &range) && range.kind == MemoryKind::managed &&
         bytes <= range.bytes - (address - range.base);
}

CUresult check_place(const CUmemLocation& place) {
  switch (place.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      return find_device(place.id) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUmemLocation place_of(CUdevice device) {
  return device == CU_DEVICE_CPU ? CUmemLocation{CU_MEM_LOCATION_TYPE_HOST, 0}
                                 : CUmemLocation{CU_MEM_LOCATION_TYPE_DEVICE, device};
}

bool names_place(CUmem_advise advice) {
  return advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION ||
         advice == CU_MEM_ADVISE_SET_ACCESSED_BY || advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY;
}

CUresult enter_stream(CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  return enter(hStream, &context, &stream);
}

// What the functions about several ranges have in common.
CUresult check_ranges(CUstream hStream, const CUdeviceptr* addresses, const size_t* sizes,
                      size_t count, unsigned long long flags) {
  if (const CUresult result = enter_stream(hStream); result != CUDA_SUCCESS) return result;
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
  for (const CUmemLocation& place : std::span(places, places_count)) {
    if (const CUresult result = check_place(place); result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

/// Pages of variables; they stay, since a module that comes later may have its own there.
class VariablePages {
 public:
  /// False where something else of the program's lies there.
  bool take(uint64_t base, uint64_t bytes) {
    const std::lock_guard guard(mutex_);
    const uint64_t end = (base + bytes + page_bytes - 1) & ~(page_bytes - 1);
    for (uint64_t at = base & ~(page_bytes - 1); at < end;) {
      const auto after = taken_.upper_bound(at);
      if (after != taken_.begin() && std::prev(after)->second > at) {
        at = std::prev(after)->second;
        continue;
      }
      const uint64_t until = after == taken_.end() ? end : std::min(end, after->first);
      if (!client::reserve_exactly(at, until - at)) return false;
      taken_.emplace(at, until);
      if (::mprotect(reinterpret_cast<void*>(at), until - at, PROT_READ | PROT_WRITE) != 0) {
        return false;
      }
      at = until;
    }
    return true;
  }

 private:
  static constexpr uint64_t page_bytes = 4096;

  std::mutex mutex_;
  std::map<uint64_t, uint64_t> taken_;  ///< begin, end
};

}  // namespace

CUresult adopt_variable(Range range) {
  static auto* const pages = new VariablePages;
  range.kind = MemoryKind::managed;
  range.variable = true;
  if (!pages->take(range.base, range.bytes) || !addresses().add(range)) {
    say("a managed variable lies at 0x%llx on the server, where the program has something else; "
        "start the program again, or use cudaMallocManaged",
        static_cast<unsigned long long>(range.base));
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  // What a view begins with, on both sides.
  std::memset(reinterpret_cast<void*>(range.base), 0, range.bytes);
  const CUresult result = open_view_of(range);
  if (result == CUDA_SUCCESS) {
    open_visible_window();
    note_reached_by_all(range.base);
  } else {
    addresses().remove(range.base, MemoryKind::managed, MemoryKind::managed, nullptr);
  }
  return result;
}

void release_variable(uint64_t base) { end_views(base); }

CUresult cuMemAllocManaged(CUdeviceptr* dptr, size_t bytesize, unsigned int flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (dptr == nullptr || bytesize == 0 ||
      (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  Range range;
  range.bytes = bytesize;
  range.kind = MemoryKind::managed;
  if (const CUresult result = allocate_host(context, &range); result != CUDA_SUCCESS) return result;
  // Every launch will need the view: where the server has no room for it, better none starts to.
  if (!range.shared && open_view_of(range) != CUDA_SUCCESS) {
    free_host(range);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  note_reached_by_all(range.base);
  *dptr = range.base;
  return CUDA_SUCCESS;
}

// Whose turn it is with which memory need not be said: what differs is found.
CUresult cuStreamAttachMemAsync(CUstream hStream, CUdeviceptr dptr, size_t length,
                                unsigned int flags) {
  if (const CUresult result = enter_stream(hStream); result != CUDA_SUCCESS) return result;
  const bool one_flag =
      flags == CU_MEM_ATTACH_GLOBAL || flags == CU_MEM_ATTACH_HOST || flags == CU_MEM_ATTACH_SINGLE;
  return one_flag && is_managed(dptr, length != 0 ? length : 1) ? CUDA_SUCCESS
                                                                : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice,
                        CUmemLocation location) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (!is_managed(devPtr, count) || advice < CU_MEM_ADVISE_SET_READ_MOSTLY ||
      advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return names_place(advice) ? check_place(location) : CUDA_SUCCESS;
}

CUresult cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device) {
  return shim::cuMemAdvise_v2(devPtr, count, advice, place_of(device));
}

CUresult cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location,
                               unsigned int flags, CUstream hStream) {
  if (const CUresult result = enter_stream(hStream); result != CUDA_SUCCESS) return result;
  if (!is_managed(devPtr, count) || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return check_place(location);
}

CUresult cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice,
                            CUstream hStream) {
  return shim::cuMemPrefetchAsync_v2(devPtr, count, place_of(dstDevice), 0, hStream);
}

CUresult cuMemPrefetchBatchAsync(CUdeviceptr* dptrs, size_t* sizes, size_t count,
                                 CUmemLocation* prefetchLocs, size_t* prefetchLocIdxs,
                                 size_t numPrefetchLocs, unsigned long long flags,
                                 CUstream hStream) {
  const CUresult result = check_ranges(hStream, dptrs, sizes, count, flags);
  return result == CUDA_SUCCESS
             ? check_places(prefetchLocs, prefetchLocIdxs, numPrefetchLocs, count)
             : result;
}

CUresult cuMemDiscardBatchAsync(CUdeviceptr* dptrs, size_t* sizes, size_t count,
                                unsigned long long flags, CUstream hStream) {
  return check_ranges(hStream, dptrs, sizes, count, flags);
}

CUresult cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr* dptrs, size_t* sizes, size_t count,
                                           CUmemLocation* prefetchLocs, size_t* prefetchLocIdxs,
                                           size_t numPrefetchLocs, unsigned long long flags,
                                           CUstream hStream) {
  return shim::cuMemPrefetchBatchAsync(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs,
                                       numPrefetchLocs, flags, hStream);
}

}  // namespace outboard::shim
