// Entry points of virtual memory management: address ranges, physical memory, mappings.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "activity.hpp"
#include "guard.hpp"
#include "memory_map.hpp"
#include "physical_memory.hpp"

namespace softgpu {

HandleTable<PhysicalMemory, CUmemGenericAllocationHandle, 12>& physical_memories() {
  static auto& table = *new HandleTable<PhysicalMemory, CUmemGenericAllocationHandle, 12>;
  return table;
}

PhysicalMemory::~PhysicalMemory() {
  if (address_ != 0) {
    device->space.remove({address_, bytes});
    Activity::discard(address_, bytes);
  }
  if (fd >= 0) close(fd);
  if (counted) device->refund(bytes);
}

uint64_t PhysicalMemory::address() {
  const std::lock_guard lock(mutex_);
  if (address_ != 0) return address_;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return 0;
  address_ = reinterpret_cast<uint64_t>(p);
  device->space.add({address_, bytes});
  return address_;
}

}  // namespace softgpu

using namespace softgpu;

namespace {

constexpr uint64_t kGranule = Heap::kGranule;

struct Reservations {
  std::mutex mutex;
  std::map<uint64_t, uint64_t> ranges;  // base -> bytes
  /// Whether [base, base + bytes) lies within one reservation.
  bool contains(uint64_t base, uint64_t bytes) const {
    auto next = ranges.upper_bound(base);
    if (next == ranges.begin()) return false;
    --next;
    return bytes <= next->second && base - next->first <= next->second - bytes;
  }
};

Reservations& reservations() {
  static auto& value = *new Reservations;
  return value;
}

bool granular(uint64_t value) { return value % kGranule == 0; }

/// Reserves address space at a multiple of `alignment`, at `hint` if that is free.
uint64_t reserve(uint64_t bytes, uint64_t alignment, uint64_t hint) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (hint != 0) {
    void* p =
        mmap(reinterpret_cast<void*>(hint), bytes, PROT_NONE, kFlags | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == reinterpret_cast<void*>(hint)) return hint;
    if (p != MAP_FAILED) munmap(p, bytes);  // a kernel that does not know NOREPLACE
  }
  uint64_t wide = bytes + alignment;
  if (wide < bytes) return 0;
  void* p = mmap(nullptr, wide, PROT_NONE, kFlags, -1, 0);
  if (p == MAP_FAILED) return 0;
  uint64_t from = reinterpret_cast<uint64_t>(p);
  uint64_t base = (from + alignment - 1) / alignment * alignment;
  if (base > from) munmap(p, base - from);
  if (uint64_t rest = from + wide - base - bytes) {
    munmap(reinterpret_cast<void*>(base + bytes), rest);
  }
  return base;
}

CUresult device_of(const CUmemAllocationProp* properties, Device** out) {
  if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  constexpr int kHandles = CU_MEM_HANDLE_TYPE_NONE | CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  if ((properties->requestedHandleTypes & ~kHandles) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  *out = Driver::get().device(properties->location.id);
  return *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/// The files that physical memory is made of are named after their device.
const std::string kFileName = "softgpu-memory-";

Device* device_of_file(int fd) {
  char target[64] = {};
  std::string link = "/proc/self/fd/" + std::to_string(fd);
  std::string begin = "/memfd:" + kFileName;
  if (readlink(link.c_str(), target, sizeof target - 1) < 0 ||
      std::strncmp(target, begin.c_str(), begin.size()) != 0) {
    return nullptr;
  }
  return Driver::get().device(std::atoi(target + begin.size()));
}

/// All mappings in the range, which they must cover without a gap.
CUresult mappings_of(uint64_t base, uint64_t bytes, std::vector<Allocation>* out) {
  *out = MemoryMap::get().overlapping(base, bytes);
  uint64_t covered = base;
  for (const Allocation& a : *out) {
    if (a.kind != MemoryKind::mapped || a.base > covered) return CUDA_ERROR_INVALID_VALUE;
    covered = a.base + a.size;
  }
  return covered >= base + bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

extern "C" CUresult cuMemAddressReserve(CUdeviceptr* out, size_t bytes, size_t alignment,
                                        CUdeviceptr hint, unsigned long long flags) {
  return with_driver([&] {
    bool power_of_two = (alignment & (alignment - 1)) == 0;
    if (out == nullptr || bytes == 0 || !granular(bytes) || !power_of_two || flags != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    alignment = std::max<size_t>(alignment, kGranule);
    if (hint % alignment != 0) hint = 0;
    uint64_t base = reserve(bytes, alignment, hint);
    if (base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    std::lock_guard lock(reservations().mutex);
    reservations().ranges[base] = bytes;
    *out = base;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemAddressFree(CUdeviceptr base, size_t bytes) {
  return with_driver([&] {
    std::lock_guard lock(reservations().mutex);
    auto found = reservations().ranges.find(base);
    if (found == reservations().ranges.end() || found->second != bytes) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (!MemoryMap::get().overlapping(base, bytes).empty()) return CUDA_ERROR_INVALID_VALUE;
    reservations().ranges.erase(found);
    Activity::discard(base, bytes);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemGetAllocationGranularity(size_t* out,
                                                  const CUmemAllocationProp* properties,
                                                  CUmemAllocationGranularity_flags option) {
  return with_driver([&] {
    Device* device = nullptr;
    if (out == nullptr || option < 0 || option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (CUresult r = device_of(properties, &device); r != CUDA_SUCCESS) return r;
    *out = kGranule;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemCreate(CUmemGenericAllocationHandle* out, size_t bytes,
                                const CUmemAllocationProp* properties, unsigned long long flags) {
  return with_driver([&] {
    Device* device = nullptr;
    if (out == nullptr || bytes == 0 || !granular(bytes) || flags != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (CUresult r = device_of(properties, &device); r != CUDA_SUCCESS) return r;
    if (!device->charge(bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    auto memory = std::make_shared<PhysicalMemory>();
    memory->device = device;
    memory->bytes = bytes;
    memory->counted = true;
    memory->properties = *properties;
    memory->fd = memfd_create((kFileName + std::to_string(device->ordinal)).c_str(), MFD_CLOEXEC);
    if (memory->fd < 0 || ftruncate(memory->fd, static_cast<off_t>(bytes)) != 0) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = physical_memories().insert(std::move(memory));
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  return with_driver(
      [&] { return physical_memories().erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuMemMap(CUdeviceptr base, size_t bytes, size_t offset,
                             CUmemGenericAllocationHandle handle, unsigned long long flags) {
  return with_driver([&] {
    auto memory = physical_memories().find(handle);
    if (!memory || flags != 0 || !granular(base)) return CUDA_ERROR_INVALID_VALUE;
    // As driver 580: physical memory is mapped as a whole.
    if (offset != 0 || bytes != memory->bytes) return CUDA_ERROR_NOT_SUPPORTED;
    std::lock_guard lock(reservations().mutex);
    if (!reservations().contains(base, bytes)) return CUDA_ERROR_INVALID_VALUE;
    Allocation a;
    a.base = base;
    a.size = bytes;
    a.kind = MemoryKind::mapped;
    a.device = memory->device;
    a.physical = memory;
    a.physical_offset = offset;
    if (!MemoryMap::get().insert(std::move(a))) return CUDA_ERROR_INVALID_VALUE;
    // Kernels see it from cuMemSetAccess on: until then it is in no device's address space.
    int error = Activity::remap(base, bytes, [&] {
      void* p = mmap(reinterpret_cast<void*>(base), bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_FIXED, memory->fd, static_cast<off_t>(offset));
      return p == MAP_FAILED ? -1 : 0;
    });
    if (error == 0) return CUDA_SUCCESS;
    MemoryMap::get().erase(base, MemoryKind::mapped);
    return CUDA_ERROR_OUT_OF_MEMORY;
  });
}

extern "C" CUresult cuMemUnmap(CUdeviceptr base, size_t bytes) {
  return with_driver([&] {
    std::vector<Allocation> mappings;
    std::lock_guard lock(reservations().mutex);
    if (CUresult r = mappings_of(base, bytes, &mappings); r != CUDA_SUCCESS) return r;
    bool whole = !mappings.empty() && mappings.front().base == base &&
                 mappings.back().base + mappings.back().size == base + bytes;
    if (!whole) return CUDA_ERROR_INVALID_VALUE;
    for (const Allocation& a : mappings) {
      for (auto& device : Driver::get().devices) device->space.remove({a.base, a.size});
      Activity::conceal(a.base, a.size);
      MemoryMap::get().erase(a.base, MemoryKind::mapped);
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemSetAccess(CUdeviceptr base, size_t bytes, const CUmemAccessDesc* desc,
                                   size_t count) {
  return with_driver([&] {
    if (desc == nullptr || count == 0 || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    std::vector<Allocation> mappings;
    if (CUresult r = mappings_of(base, bytes, &mappings); r != CUDA_SUCCESS) return r;
    for (size_t i = 0; i < count; ++i) {
      Device* device = Driver::get().device(desc[i].location.id);
      if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
      if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
      switch (desc[i].flags) {
        case CU_MEM_ACCESS_FLAGS_PROT_NONE:
          device->space.remove({base, bytes});
          break;
        case CU_MEM_ACCESS_FLAGS_PROT_READ:  // kernels cannot be kept from writing
        case CU_MEM_ACCESS_FLAGS_PROT_READWRITE:
          device->space.add({base, bytes});
          break;
        default:
          return CUDA_ERROR_INVALID_VALUE;
      }
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemGetAccess(unsigned long long* out, const CUmemLocation* location,
                                   CUdeviceptr pointer) {
  return with_driver([&] {
    if (out == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Device* device = Driver::get().device(location->id);
    auto found = MemoryMap::get().find(pointer);
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE || device == nullptr || !found ||
        found->kind != MemoryKind::mapped) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *out = device->space.contains(pointer, 1) ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                              : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemExportToShareableHandle(void* out, CUmemGenericAllocationHandle handle,
                                                 CUmemAllocationHandleType type,
                                                 unsigned long long flags) {
  return with_driver([&] {
    auto memory = physical_memories().find(handle);
    if (out == nullptr || !memory || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    if ((memory->properties.requestedHandleTypes & type) == 0) return CUDA_ERROR_INVALID_VALUE;
    int fd = fcntl(memory->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return CUDA_ERROR_OPERATING_SYSTEM;
    std::memcpy(out, &fd, sizeof fd);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* out,
                                                   void* os_handle,
                                                   CUmemAllocationHandleType type) {
  return with_driver([&] {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    struct stat info{};
    int theirs = static_cast<int>(reinterpret_cast<intptr_t>(os_handle));
    Device* device = device_of_file(theirs);
    int fd = device != nullptr ? fcntl(theirs, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd < 0) return CUDA_ERROR_INVALID_VALUE;
    auto memory = std::make_shared<PhysicalMemory>();
    memory->fd = fd;
    memory->device = device;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= 0 ||
        !granular(static_cast<uint64_t>(info.st_size))) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    memory->bytes = static_cast<uint64_t>(info.st_size);
    memory->properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    memory->properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    memory->properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    memory->properties.location.id = device->ordinal;
    *out = physical_memories().insert(std::move(memory));
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* out,
                                                           CUmemGenericAllocationHandle handle) {
  return with_driver([&] {
    auto memory = physical_memories().find(handle);
    if (out == nullptr || !memory) return CUDA_ERROR_INVALID_VALUE;
    *out = memory->properties;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* out, void* address) {
  return with_driver([&] {
    auto found = MemoryMap::get().find(reinterpret_cast<uint64_t>(address));
    if (out == nullptr || !found || !found->physical) return CUDA_ERROR_INVALID_VALUE;
    *out = physical_memories().insert(found->physical);
    return CUDA_SUCCESS;
  });
}
