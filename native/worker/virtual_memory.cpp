// Reservations, physical memory and mappings of the program's own.
// SPDX-License-Identifier: Apache-2.0
#include "worker/virtual_memory.hpp"

#include <iterator>
#include <utility>
#include <vector>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

bool overflows(Range range) { return range.base + range.bytes < range.base; }

}  // namespace

VirtualMemory::~VirtualMemory() {
  while (!mappings_.empty()) unmap_at(mappings_.begin());
  for (const auto& [base, bytes] : reservations_) driver_.cuMemAddressFree(base, bytes);
}

CUresult VirtualMemory::reserve(Range range, uint64_t alignment, uint64_t* base) {
  if (range.bytes == 0 || overflows(range)) return CUDA_ERROR_INVALID_VALUE;
  CUdeviceptr address = 0;
  const CUresult result =
      driver_.cuMemAddressReserve(&address, range.bytes, alignment, range.base, 0);
  if (result != CUDA_SUCCESS) return result;
  if (range.base != 0 && address != range.base) {
    driver_.cuMemAddressFree(address, range.bytes);
    return CUDA_ERROR_INVALID_VALUE;
  }
  reservations_.emplace(address, range.bytes);
  *base = address;
  return CUDA_SUCCESS;
}

CUresult VirtualMemory::free(Range range) {
  const auto found = reservations_.find(range.base);
  if (found == reservations_.end() || found->second != range.bytes || overlaps_mapping(range)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = driver_.cuMemAddressFree(range.base, range.bytes);
  if (result == CUDA_SUCCESS) reservations_.erase(found);
  return result;
}

CUresult VirtualMemory::create(uint64_t id, unsigned device, const CUmemAllocationProp& properties,
                               uint64_t bytes) {
  if (!share_.reserve(device, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  auto memory = std::make_shared<PhysicalMemory>(driver_);
  memory->bytes = bytes;
  memory->device = device;
  memory->claim = std::make_shared<Claim>(share_, device, bytes, true);
  const CUresult result = driver_.cuMemCreate(&memory->handle, bytes, &properties, 0);
  if (result == CUDA_SUCCESS) physical_.insert(id, std::move(memory));
  return result;
}

UniqueFd VirtualMemory::export_memory(const PhysicalMemory& memory) const {
  int fd = -1;
  const CUresult result = driver_.cuMemExportToShareableHandle(
      &fd, memory.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
  return UniqueFd(result == CUDA_SUCCESS ? fd : -1);
}

CUresult VirtualMemory::import_memory(uint64_t id, UniqueFd fd, std::shared_ptr<Claim> claim) {
  auto memory = std::make_shared<PhysicalMemory>(driver_);
  memory->bytes = claim->bytes;
  memory->device = claim->device;
  memory->imported = true;
  memory->claim = std::move(claim);
  const auto handle = static_cast<intptr_t>(fd.get());
  const CUresult result = driver_.cuMemImportFromShareableHandle(
      &memory->handle, reinterpret_cast<void*>(handle), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  if (result == CUDA_SUCCESS) physical_.insert(id, std::move(memory));
  return result;
}

CUresult VirtualMemory::release(uint64_t id) {
  const PhysicalMemory* memory = physical_.find(id);
  if (!memory) return CUDA_ERROR_INVALID_HANDLE;
  if (memory->mappings != 0) return CUDA_ERROR_INVALID_VALUE;
  physical_.remove(id);
  return CUDA_SUCCESS;
}

CUresult VirtualMemory::map(uint64_t id, Range range, uint64_t offset) {
  const std::shared_ptr<PhysicalMemory> memory = physical_.share(id);
  if (!memory) return CUDA_ERROR_INVALID_HANDLE;
  if (range.bytes == 0 || range.bytes > memory->bytes || offset > memory->bytes - range.bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto reservation = reservations_.upper_bound(range.base);
  if (reservation == reservations_.begin()) return CUDA_ERROR_INVALID_VALUE;
  --reservation;
  const uint64_t at = range.base - reservation->first;
  if (range.bytes > reservation->second || at > reservation->second - range.bytes ||
      overlaps_mapping(range)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = driver_.cuMemMap(range.base, range.bytes, offset, memory->handle, 0);
  if (result != CUDA_SUCCESS) return result;
  if (!memory_.add_mapping(memory->device, range)) {
    driver_.cuMemUnmap(range.base, range.bytes);
    return CUDA_ERROR_INVALID_VALUE;
  }
  ++memory->mappings;
  mappings_.emplace(range.base, std::pair(range.bytes, memory));
  return CUDA_SUCCESS;
}

bool VirtualMemory::overlaps_mapping(Range range) const {
  auto after = mappings_.lower_bound(range.base);
  if (after != mappings_.end() && after->first - range.base < range.bytes) return true;
  if (after == mappings_.begin()) return false;
  --after;
  return range.base - after->first < after->second.first;
}

VirtualMemory::Mappings::iterator VirtualMemory::first_of(Range range) {
  const auto first = mappings_.find(range.base);
  uint64_t covered = 0;
  for (auto next = first; next != mappings_.end() && next->first == range.base + covered; ++next) {
    covered += next->second.first;
    if (covered == range.bytes) return first;
    if (covered > range.bytes) break;
  }
  return mappings_.end();
}

void VirtualMemory::unmap_at(Mappings::iterator mapping) {
  driver_.cuMemUnmap(mapping->first, mapping->second.first);
  memory_.remove_mapping(mapping->first);
  --mapping->second.second->mappings;
  mappings_.erase(mapping);
}

CUresult VirtualMemory::unmap(Range range) {
  auto next = first_of(range);
  if (next == mappings_.end()) return CUDA_ERROR_INVALID_VALUE;
  while (next != mappings_.end() && next->first - range.base < range.bytes) unmap_at(next++);
  return CUDA_SUCCESS;
}

CUresult VirtualMemory::set_access(Range range, CUdevice device, CUmemAccess_flags access) {
  if (!overlaps_mapping(range) || !memory_.contains(range.base, range.bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return worker::set_access(driver_, range, device, access);
}

// ---- commands -----------------------------------------------------------------------------------

CUresult execute(Worker& worker, const wire::command::AddressReserve& command,
                 wire::command::AddressReserve::Reply& reply) {
  uint64_t base = 0;
  const CUresult result =
      worker.virtual_memory.reserve({command.address, command.bytes}, command.alignment, &base);
  reply.address = base;
  return result;
}

CUresult execute(Worker& worker, const wire::command::AddressFree& command) {
  return worker.virtual_memory.free({command.address, command.bytes});
}

namespace {

CUmemAllocationProp device_memory(CUdevice device) {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  return properties;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::PhysicalGranularity& command,
                 wire::command::PhysicalGranularity::Reply& reply) {
  CUdevice device = 0;
  if (const CUresult result = worker.find_device(command.device, &device); result != CUDA_SUCCESS) {
    return result;
  }
  const CUmemAllocationProp properties = device_memory(device);
  size_t bytes = 0;
  const CUresult result = worker.driver().cuMemGetAllocationGranularity(
      &bytes, &properties, static_cast<CUmemAllocationGranularity_flags>(command.option));
  reply.bytes = bytes;
  return result;
}

CUresult execute(Worker& worker, const wire::command::PhysicalCreate& command,
                 wire::command::PhysicalCreate::Reply&) {
  if (!worker.accept_create(worker.virtual_memory.may_create(command.memory))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  CUdevice device = 0;
  if (const CUresult result = worker.find_device(command.device, &device); result != CUDA_SUCCESS) {
    return result;
  }
  if (command.bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  CUmemAllocationProp properties = device_memory(device);
  properties.allocFlags.compressionType = static_cast<unsigned char>(command.compression);
  properties.allocFlags.usage = static_cast<unsigned short>(command.usage);
  if (command.shareable != 0) {
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  }
  return worker.virtual_memory.create(command.memory, command.device, properties, command.bytes);
}

CUresult execute(Worker& worker, const wire::command::PhysicalRelease& command) {
  return worker.virtual_memory.release(command.memory);
}

CUresult execute(Worker& worker, const wire::command::MemoryMap& command) {
  return worker.virtual_memory.map(command.memory, {command.address, command.bytes},
                                   command.offset);
}

CUresult execute(Worker& worker, const wire::command::MemoryUnmap& command) {
  return worker.virtual_memory.unmap({command.address, command.bytes});
}

CUresult execute(Worker& worker, const wire::command::MemorySetAccess& command,
                 wire::command::MemorySetAccess::Reply&) {
  CUdevice device = 0;
  if (const CUresult result = worker.find_device(command.device, &device); result != CUDA_SUCCESS) {
    return result;
  }
  return worker.virtual_memory.set_access({command.address, command.bytes}, device,
                                          static_cast<CUmemAccess_flags>(command.access));
}

}  // namespace outboard::worker
