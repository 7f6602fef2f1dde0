// Virtual memory that the program manages: address ranges, physical memory, mappings.
// SPDX-License-Identifier: Apache-2.0
//
// An address range is reserved here and at every server of the session, at the same place. What is
// reserved, made and mapped is known here, so that only what the driver may refuse costs a trip.
#include "shim/cuda/virtual_memory.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "base/log.hpp"
#include "client/windows.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/ipc.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

constexpr uint64_t least_alignment = 2 << 20;
constexpr int reserve_attempts = 16;

struct Mapping {
  uint64_t bytes = 0;
  PhysicalMemory* memory = nullptr;
  std::map<int, CUmemAccess_flags> access;  ///< by the device's ordinal
};

struct Space {
  std::mutex mutex;
  std::map<uint64_t, uint64_t> reservations;  ///< base, bytes
  std::map<uint64_t, Mapping> mappings;       ///< by base
};

Space& space() {
  static auto* const instance = new Space;
  return *instance;
}

using MappingPlace = std::map<uint64_t, Mapping>::iterator;

bool overlaps_mapping(Space& all, uint64_t base, uint64_t bytes) {
  auto after = all.mappings.lower_bound(base);
  if (after != all.mappings.end() && after->first - base < bytes) return true;
  if (after == all.mappings.begin()) return false;
  --after;
  return base - after->first < after->second.bytes;
}

// The mapping that holds `address`; end() where none does.
MappingPlace mapping_of(Space& all, uint64_t address) {
  auto found = all.mappings.upper_bound(address);
  if (found == all.mappings.begin()) return all.mappings.end();
  --found;
  return address - found->first < found->second.bytes ? found : all.mappings.end();
}

// Calls `visit(mapping)` for the mappings that cover the range; false, and no visits, where there
// is a gap.
template <typename Visit>
bool for_mappings(Space& all, uint64_t base, uint64_t bytes, Visit&& visit) {
  const auto first = mapping_of(all, base);
  uint64_t end = base;
  for (auto next = first; next != all.mappings.end() && end - base < bytes; ++next) {
    if (next != first && next->first != end) return false;
    end = next->first + next->second.bytes;
  }
  if (end - base < bytes) return false;
  for (auto next = first; next != all.mappings.end() && next->first < base + bytes;) visit(next++);
  return true;
}

// Commands of virtual memory need no context: they name a server.
template <typename Command>
CUresult call_server(client::Server* server, const Command& command,
                     client::Answer<Command>* answer) {
  server->connection().call(command, 0, answer);
  return to_cuda(answer->result);
}

template <typename Command>
CUresult call_server(client::Server* server, const Command& command) {
  client::Answer<Command> answer;
  return call_server(server, command, &answer);
}

template <typename Command>
CUresult send_server(client::Server* server, const Command& command) {
  return to_cuda(server->connection().send(command, 0));
}

// Each server of the session once, until `visit` returns an error.
template <typename Visit>
CUresult for_servers(Visit&& visit) {
  for (int ordinal = 0; ordinal < device_count; ++ordinal) {
    client::Server* server = devices[ordinal]->server;
    const bool seen = std::any_of(devices, devices + ordinal, [server](const Device* other) {
      return other->server == server;
    });
    if (seen) continue;
    if (const CUresult result = visit(server); result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

void free_everywhere(uint64_t base, uint64_t bytes, const client::Server* except_from) {
  for_servers([&](client::Server* server) {
    if (server == except_from) return CUDA_ERROR_UNKNOWN;  // it and those after it have nothing
    send_server(server, wire::command::AddressFree{.address = base, .bytes = bytes});
    return CUDA_SUCCESS;
  });
  client::release_window({base, bytes});
}

// Takes [base, base + bytes), which is reserved here, at every server but `has_it`, or gives it
// back.
CUresult reserve_everywhere(uint64_t base, uint64_t bytes, const client::Server* has_it) {
  const client::Server* refused = nullptr;
  const CUresult result = for_servers([&](client::Server* server) {
    if (server == has_it) return CUDA_SUCCESS;
    const CUresult answer =
        call_server(server, wire::command::AddressReserve{
                                .address = base, .bytes = bytes, .alignment = least_alignment});
    if (answer != CUDA_SUCCESS) refused = server;
    return answer;
  });
  if (result != CUDA_SUCCESS) free_everywhere(base, bytes, refused);
  return result;
}

// At places of our choice, which keep well away from everybody else's.
CUresult reserve_here_first(uint64_t bytes, uint64_t alignment, uint64_t hint, uint64_t* base) {
  if (hint != 0 && hint % alignment == 0 && client::reserve_exactly(hint, bytes) &&
      reserve_everywhere(hint, bytes, nullptr) == CUDA_SUCCESS) {
    *base = hint;
    return CUDA_SUCCESS;
  }
  CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
  for (int attempt = 0; attempt < reserve_attempts; ++attempt) {
    client::Window window;
    if (!client::reserve_place(client::Region::reservations, bytes, alignment, &window)) break;
    result = reserve_everywhere(window.base, bytes, nullptr);
    *base = window.base;
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEVICE_UNAVAILABLE) return result;
  }
  return result;
}

// Where the first server's driver likes: it may refuse places that are free. What does not suit us
// is kept until there is one that does, or it would be given again.
CUresult reserve_there_first(uint64_t bytes, uint64_t alignment, uint64_t* base) {
  client::Server* server = devices[0]->server;
  std::vector<uint64_t> unsuitable;
  CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
  for (int attempt = 0; attempt < reserve_attempts; ++attempt) {
    client::Answer<wire::command::AddressReserve> answer;
    result = call_server(
        server, wire::command::AddressReserve{.bytes = bytes, .alignment = alignment}, &answer);
    if (result != CUDA_SUCCESS) break;
    *base = answer.reply.address;
    if (client::reserve_exactly(*base, bytes)) {
      result = reserve_everywhere(*base, bytes, server);
      if (result == CUDA_SUCCESS) break;
    } else {
      unsuitable.push_back(*base);
    }
    result = CUDA_ERROR_OUT_OF_MEMORY;
  }
  for (const uint64_t other : unsuitable) {
    send_server(server, wire::command::AddressFree{.address = other, .bytes = bytes});
  }
  return result;
}

CUresult reserve(uint64_t bytes, uint64_t alignment, uint64_t hint, uint64_t* base) {
  const CUresult here = reserve_here_first(bytes, alignment, hint, base);
  if (here == CUDA_SUCCESS || here == CUDA_ERROR_DEVICE_UNAVAILABLE) return here;
  const CUresult there = reserve_there_first(bytes, alignment, base);
  if (there == CUDA_SUCCESS) return there;
  static const char said[] = "reservation";
  say_once(said,
           "%llu GiB of addresses cannot be reserved: at places of the client's choice the server "
           "says %d, at places of its own %d",
           static_cast<unsigned long long>(bytes >> 30), static_cast<int>(here),
           static_cast<int>(there));
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult granularity_of(Device* device, CUmemAllocationGranularity_flags option, uint64_t* bytes) {
  std::atomic<uint64_t>& known = device->granularity[option];
  if (*bytes = known.load(std::memory_order_relaxed); *bytes != 0) return CUDA_SUCCESS;
  client::Answer<wire::command::PhysicalGranularity> answer;
  const wire::command::PhysicalGranularity command{.device = device->index,
                                                   .option = static_cast<uint32_t>(option)};
  const CUresult result = call_server(device->server, command, &answer);
  if (result != CUDA_SUCCESS) return result;
  *bytes = answer.reply.bytes;
  known.store(*bytes, std::memory_order_relaxed);
  return CUDA_SUCCESS;
}

bool is_of_host(CUmemLocationType type) {
  return type == CU_MEM_LOCATION_TYPE_HOST || type == CU_MEM_LOCATION_TYPE_HOST_NUMA ||
         type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
}

CUresult device_of(const CUmemAllocationProp* properties, Device** device) {
  if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return CUDA_ERROR_NOT_SUPPORTED;  // of a host, as the attributes say
  }
  constexpr unsigned known = CU_MEM_HANDLE_TYPE_NONE | CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  if ((static_cast<unsigned>(properties->requestedHandleTypes) & ~known) != 0) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  *device = find_device(properties->location.id);
  return *device != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

bool is_shareable(const CUmemAllocationProp& properties) {
  return properties.requestedHandleTypes == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
}

PhysicalMemory* find_physical(CUmemGenericAllocationHandle value) {
  PhysicalMemory* memory = physical_memories.find(reinterpret_cast<const void*>(value));
  return memory != nullptr && memory->handles != 0 ? memory : nullptr;
}

CUmemGenericAllocationHandle handle(PhysicalMemory* memory) {
  return reinterpret_cast<CUmemGenericAllocationHandle>(memory);
}

// With the lock held.
CUresult release_unused(PhysicalMemory* memory) {
  if (memory->handles != 0 || memory->mappings != 0) return CUDA_SUCCESS;
  const CUresult result = send_server(memory->device->server,
                                      wire::command::PhysicalRelease{.memory = memory->head.id()});
  physical_memories.give(memory);
  return result;
}

}  // namespace

TileMemory find_tile_memory(CUmemGenericAllocationHandle value) {
  const std::lock_guard guard(space().mutex);
  const PhysicalMemory* memory = find_physical(value);
  if (memory == nullptr ||
      (memory->properties.allocFlags.usage & CU_MEM_CREATE_USAGE_TILE_POOL) == 0) {
    return {};
  }
  return {memory->head.id(), memory->device, memory->bytes};
}

CUresult cuMemAddressReserve(CUdeviceptr* ptr, size_t size, size_t alignment, CUdeviceptr addr,
                             unsigned long long flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const uint64_t unit = std::max<uint64_t>(alignment, least_alignment);
  if (ptr == nullptr || size == 0 || size % least_alignment != 0 || (unit & (unit - 1)) != 0 ||
      flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  uint64_t base = 0;
  if (const CUresult result = reserve(size, unit, addr, &base); result != CUDA_SUCCESS) {
    return result;
  }
  const std::lock_guard guard(space().mutex);
  space().reservations.emplace(base, size);
  *ptr = base;
  return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Space& all = space();
  const std::lock_guard guard(all.mutex);
  const auto found = all.reservations.find(ptr);
  if (found == all.reservations.end() || found->second != size ||
      overlaps_mapping(all, ptr, size)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  all.reservations.erase(found);
  free_everywhere(ptr, size, nullptr);
  return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationGranularity(size_t* granularity, const CUmemAllocationProp* prop,
                                       CUmemAllocationGranularity_flags option) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (granularity == nullptr || (option != CU_MEM_ALLOC_GRANULARITY_MINIMUM &&
                                 option != CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* device = nullptr;
  uint64_t bytes = 0;
  CUresult result = device_of(prop, &device);
  // Of a host's memory: NCCL asks before it tries whether there is any, and does without.
  if (result == CUDA_ERROR_NOT_SUPPORTED && is_of_host(prop->location.type)) {
    result = CUDA_SUCCESS;
    device = devices[0];
  }
  if (result == CUDA_SUCCESS) result = granularity_of(device, option, &bytes);
  if (result == CUDA_SUCCESS) *granularity = bytes;
  return result;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle* handle_out, size_t size,
                     const CUmemAllocationProp* prop, unsigned long long flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (handle_out == nullptr || size == 0 || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Device* device = nullptr;
  uint64_t unit = 0;
  CUresult result = device_of(prop, &device);
  if (result == CUDA_SUCCESS) {
    result = granularity_of(device, CU_MEM_ALLOC_GRANULARITY_MINIMUM, &unit);
  }
  if (result != CUDA_SUCCESS) return result;
  if (unit == 0 || size % unit != 0) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard guard(space().mutex);
  PhysicalMemory* memory = physical_memories.take();
  if (memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  result = call_server(device->server, wire::command::PhysicalCreate{
                                           .memory = memory->head.id(),
                                           .bytes = size,
                                           .device = device->index,
                                           .compression = prop->allocFlags.compressionType,
                                           .usage = prop->allocFlags.usage,
                                           .shareable = is_shareable(*prop) ? 1U : 0U,
                                       });
  if (result != CUDA_SUCCESS) {
    physical_memories.give(memory);
    return result;
  }
  memory->device = device;
  memory->properties = *prop;
  memory->bytes = size;
  memory->handles = 1;
  *handle_out = handle(memory);
  return CUDA_SUCCESS;
}

CUresult cuMemExportToShareableHandle(void* shareableHandle, CUmemGenericAllocationHandle value,
                                      CUmemAllocationHandleType handleType,
                                      unsigned long long flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(space().mutex);
  const PhysicalMemory* memory = find_physical(value);
  if (shareableHandle == nullptr || memory == nullptr || flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  if (!is_shareable(memory->properties)) return CUDA_ERROR_INVALID_VALUE;
  client::Server* server = memory->device->server;
  shares_memory.store(true);
  client::Answer<wire::command::PhysicalExport> answer;
  CUresult result = finish_uploads(server);
  if (result == CUDA_SUCCESS) {
    result =
        call_server(server, wire::command::PhysicalExport{.memory = memory->head.id()}, &answer);
  }
  if (result != CUDA_SUCCESS) return result;
  return export_descriptor(make_handle(wire::Shared::physical, memory->device, answer.reply.token),
                           shareableHandle);
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* handle_out, void* osHandle,
                                        CUmemAllocationHandleType shHandleType) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (handle_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (shHandleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  wire::InterprocessHandle shared;
  Device* device = nullptr;
  CUresult result = import_descriptor(osHandle, wire::Shared::physical, &shared);
  if (result == CUDA_SUCCESS) result = device_of(shared, &device);
  if (result != CUDA_SUCCESS) return result;
  shares_memory.store(true);
  const std::lock_guard guard(space().mutex);
  PhysicalMemory* memory = physical_memories.take();
  if (memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  client::Answer<wire::command::PhysicalImport> answer;
  result = call_server(
      device->server,
      wire::command::PhysicalImport{.memory = memory->head.id(), .token = name_of(shared)},
      &answer);
  if (result != CUDA_SUCCESS) {
    physical_memories.give(memory);
    return result;
  }
  memory->device = device;
  memory->properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  memory->properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  memory->properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device->ordinal};
  memory->bytes = answer.reply.bytes;
  memory->handles = 1;
  *handle_out = handle(memory);
  return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle value) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(space().mutex);
  PhysicalMemory* memory = find_physical(value);
  if (memory == nullptr) return CUDA_ERROR_INVALID_VALUE;
  --memory->handles;
  return release_unused(memory);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle_out, void* addr) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Space& all = space();
  const std::lock_guard guard(all.mutex);
  const auto mapping = mapping_of(all, reinterpret_cast<uint64_t>(addr));
  if (handle_out == nullptr || mapping == all.mappings.end()) return CUDA_ERROR_INVALID_VALUE;
  ++mapping->second.memory->handles;
  *handle_out = handle(mapping->second.memory);
  return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* prop,
                                                CUmemGenericAllocationHandle value) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(space().mutex);
  const PhysicalMemory* memory = find_physical(value);
  if (prop == nullptr || memory == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *prop = memory->properties;
  return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle value,
                  unsigned long long flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Space& all = space();
  const std::lock_guard guard(all.mutex);
  PhysicalMemory* memory = find_physical(value);
  if (memory == nullptr || flags != 0 || ptr % least_alignment != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // As driver 580: physical memory is mapped as a whole.
  if (offset != 0 || size != memory->bytes) return CUDA_ERROR_NOT_SUPPORTED;
  auto reservation = all.reservations.upper_bound(ptr);
  if (reservation == all.reservations.begin()) return CUDA_ERROR_INVALID_VALUE;
  --reservation;
  const uint64_t at = ptr - reservation->first;
  if (size > reservation->second || at > reservation->second - size ||
      overlaps_mapping(all, ptr, size)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = send_server(
      memory->device->server,
      wire::command::MemoryMap{
          .memory = memory->head.id(), .address = ptr, .bytes = size, .offset = offset});
  if (result != CUDA_SUCCESS) return result;
  ++memory->mappings;
  all.mappings[ptr] = Mapping{size, memory, {}};
  Range range;
  range.base = ptr;
  range.bytes = size;
  range.device = memory->device;
  range.kind = MemoryKind::mapped;
  range.flags = memory->properties.requestedHandleTypes;
  range.decompressed =
      (memory->properties.allocFlags.usage & CU_MEM_CREATE_USAGE_HW_DECOMPRESS) != 0;
  addresses().add(range);
  return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr ptr, size_t size) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Space& all = space();
  const std::lock_guard guard(all.mutex);
  const auto first = all.mappings.find(ptr);
  const auto last = size == 0 ? all.mappings.end() : mapping_of(all, ptr + size - 1);
  if (first == all.mappings.end() || last == all.mappings.end() ||
      last->first + last->second.bytes != ptr + size) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  client::Server* server = first->second.memory->device->server;
  if (const CUresult result = finish_uploads(server); result != CUDA_SUCCESS) return result;
  CUresult result = CUDA_SUCCESS;
  const bool whole = for_mappings(all, ptr, size, [&](MappingPlace mapping) {
    PhysicalMemory* memory = mapping->second.memory;
    addresses().remove(mapping->first, MemoryKind::mapped, MemoryKind::mapped, nullptr);
    const CUresult sent = send_server(
        memory->device->server,
        wire::command::MemoryUnmap{.address = mapping->first, .bytes = mapping->second.bytes});
    --memory->mappings;
    const CUresult released = release_unused(memory);
    if (sent != CUDA_SUCCESS || released != CUDA_SUCCESS) result = CUDA_ERROR_DEVICE_UNAVAILABLE;
    all.mappings.erase(mapping);
  });
  return whole ? result : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc* desc, size_t count) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (desc == nullptr || count == 0 || size == 0) return CUDA_ERROR_INVALID_VALUE;
  Space& all = space();
  const std::lock_guard guard(all.mutex);
  client::Server* server = nullptr;
  const bool covered = for_mappings(all, ptr, size, [&](MappingPlace mapping) {
    server = mapping->second.memory->device->server;
  });
  if (!covered) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
    const Device* device = find_device(desc[i].location.id);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    if (device->server != server) {
      if (desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_NONE) continue;
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    const CUresult result = call_server(
        server,
        wire::command::MemorySetAccess{
            .address = ptr, .bytes = size, .device = device->index, .access = desc[i].flags});
    if (result != CUDA_SUCCESS) return result;
    for_mappings(all, ptr, size, [&](MappingPlace mapping) {
      mapping->second.access[device->ordinal] = desc[i].flags;
    });
  }
  return CUDA_SUCCESS;
}

CUresult cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location, CUdeviceptr ptr) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (flags == nullptr || location == nullptr || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
      find_device(location->id) == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Space& all = space();
  const std::lock_guard guard(all.mutex);
  const auto mapping = mapping_of(all, ptr);
  if (mapping == all.mappings.end()) return CUDA_ERROR_INVALID_VALUE;
  const auto access = mapping->second.access.find(location->id);
  *flags = access == mapping->second.access.end() ? CU_MEM_ACCESS_FLAGS_PROT_NONE : access->second;
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
