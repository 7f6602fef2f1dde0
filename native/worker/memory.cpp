// Device memory and its table.
// SPDX-License-Identifier: Apache-2.0
#include "worker/memory.hpp"

#include <algorithm>
#include <iterator>
#include <set>

#include "worker/worker.hpp"

namespace outboard::worker {

CUresult set_access(const Driver& driver, const Range& range, CUdevice device,
                    CUmemAccess_flags access) {
  CUmemAccessDesc description = {};
  description.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  description.flags = access;
  return driver.cuMemSetAccess(range.base, range.bytes, &description, 1);
}

Memory::Memory(const Driver& driver, Share& share, std::vector<CUdevice> devices)
    : driver_(driver), share_(share), devices_(devices.size()) {
  for (size_t i = 0; i < devices.size(); ++i) devices_[i].device = devices[i];
}

Memory::~Memory() { free_windows(); }

bool Memory::reserve_window(unsigned device, Range window) {
  CUdeviceptr address = 0;
  if (driver_.cuMemAddressReserve(&address, window.bytes, granule_bytes, window.base, 0) !=
      CUDA_SUCCESS) {
    return false;
  }
  if (address != window.base) {
    driver_.cuMemAddressFree(address, window.bytes);
    return false;
  }
  DeviceMemory& memory = devices_[device];
  memory.window = window;
  memory.free_window.add_region(window);
  return true;
}

void Memory::free_windows() {
  for (unsigned device = 0; device < devices_.size(); ++device) {
    DeviceMemory& memory = devices_[device];
    while (!memory.chunks.empty()) unmap_chunk(device, memory.chunks.begin()->first);
    if (memory.window.bytes == 0) continue;
    driver_.cuMemAddressFree(memory.window.base, memory.window.bytes);
    memory.window = {};
    memory.free_window = Blocks{granule_bytes};
  }
  table_.clear();
}

// Exportable, because it cannot be added later; plain where the driver has no such kind.
CUresult Memory::create(CUdevice device, uint64_t bytes,
                        CUmemGenericAllocationHandle* handle) const {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  int algorithms = 0;
  driver_.cuDeviceGetAttribute(&algorithms, CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK,
                               device);
  if (algorithms != 0) properties.allocFlags.usage = CU_MEM_CREATE_USAGE_HW_DECOMPRESS;
  CUresult result = driver_.cuMemCreate(handle, bytes, &properties, 0);
  if (result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY) return result;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
  return driver_.cuMemCreate(handle, bytes, &properties, 0);
}

CUresult Memory::make_chunk(unsigned device, uint64_t bytes, uint64_t* address) {
  if (!share_.reserve(device, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  Chunk chunk{0, bytes, std::make_shared<Claim>(share_, device, bytes, true), std::nullopt};
  const CUresult result = create(devices_[device].device, bytes, &chunk.handle);
  return result == CUDA_SUCCESS ? map_chunk(device, std::move(chunk), address) : result;
}

// The chunk's handle goes where it cannot be mapped.
CUresult Memory::map_chunk(unsigned device, Chunk chunk, uint64_t* address) {
  DeviceMemory& memory = devices_[device];
  CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
  const auto place = memory.free_window.allocate(chunk.bytes);
  if (place) {
    result = driver_.cuMemMap(place->base, chunk.bytes, 0, chunk.handle, 0);
    if (result == CUDA_SUCCESS) {
      std::set<unsigned> reached_by = {device};
      for (const auto& [viewer, times] : memory.viewers) reached_by.insert(viewer);
      if (chunk.importer) reached_by.insert(*chunk.importer);
      for (const unsigned viewer : reached_by) {
        if (result == CUDA_SUCCESS) {
          result = set_access(driver_, *place, devices_[viewer].device,
                              CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
        }
      }
      if (result != CUDA_SUCCESS) driver_.cuMemUnmap(place->base, chunk.bytes);
    }
    if (result != CUDA_SUCCESS) memory.free_window.release(*place);
  }
  if (result != CUDA_SUCCESS) {
    driver_.cuMemRelease(chunk.handle);
    return result;
  }
  memory.chunks.emplace(place->base, std::move(chunk));
  *address = place->base;
  return CUDA_SUCCESS;
}

CUresult Memory::open(unsigned device, unsigned viewer) {
  DeviceMemory& memory = devices_[device];
  if (memory.viewers[viewer]++ != 0) return CUDA_SUCCESS;
  for (const auto& [base, chunk] : memory.chunks) {
    const CUresult result = set_access(driver_, {base, chunk.bytes}, devices_[viewer].device,
                                       CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    if (result == CUDA_SUCCESS) continue;
    close(device, viewer);
    return result;
  }
  return CUDA_SUCCESS;
}

CUresult Memory::close(unsigned device, unsigned viewer) {
  DeviceMemory& memory = devices_[device];
  const auto found = memory.viewers.find(viewer);
  if (found == memory.viewers.end()) return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
  if (--found->second != 0) return CUDA_SUCCESS;
  memory.viewers.erase(found);
  CUresult result = CUDA_SUCCESS;
  for (const auto& [base, chunk] : memory.chunks) {
    if (chunk.importer == viewer) continue;
    const CUresult closed = set_access(driver_, {base, chunk.bytes}, devices_[viewer].device,
                                       CU_MEM_ACCESS_FLAGS_PROT_NONE);
    if (result == CUDA_SUCCESS) result = closed;
  }
  return result;
}

void Memory::unmap_chunk(unsigned device, uint64_t address) {
  DeviceMemory& memory = devices_[device];
  const auto chunk = memory.chunks.find(address);
  driver_.cuMemUnmap(address, chunk->second.bytes);
  driver_.cuMemRelease(chunk->second.handle);
  memory.free_window.release({address, chunk->second.bytes});
  memory.chunks.erase(chunk);
}

CUresult Memory::allocate(const Context& context, unsigned device, uint64_t bytes,
                          CUdeviceptr* address) {
  DeviceMemory& memory = devices_[device];
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (bytes > memory.window.bytes) return CUDA_ERROR_OUT_OF_MEMORY;
  Allocation allocation;
  allocation.device = device;
  allocation.context = &context;
  if (bytes <= small_bytes) {
    auto block = memory.small.allocate(bytes);
    if (!block) {
      uint64_t chunk = 0;
      if (const CUresult result = make_chunk(device, granule_bytes, &chunk);
          result != CUDA_SUCCESS) {
        return result;
      }
      memory.small.add_region({chunk, granule_bytes});
      block = memory.small.allocate(bytes);
    }
    allocation.range = {block->base, bytes};
    allocation.block_bytes = block->bytes;
  } else {
    allocation.block_bytes = memory.free_window.rounded(bytes);
    if (const CUresult result = make_chunk(device, allocation.block_bytes, &allocation.range.base);
        result != CUDA_SUCCESS) {
      return result;
    }
    allocation.range.bytes = bytes;
  }
  *address = allocation.range.base;
  table_.emplace(allocation.range.base, allocation);
  return CUDA_SUCCESS;
}

Allocation* Memory::begins_at(CUdeviceptr address) {
  const auto found = table_.find(address);
  if (found == table_.end() || found->second.freed) return nullptr;
  if (found->second.module || !found->second.context) return nullptr;
  return &found->second;
}

void Memory::release(CUdeviceptr address) {
  const auto found = table_.find(address);
  if (found == table_.end()) return;
  const Allocation allocation = found->second;
  table_.erase(found);
  if (allocation.module) return;
  DeviceMemory& memory = devices_[allocation.device];
  if (allocation.imported) return unmap_chunk(allocation.device, address & ~(granule_bytes - 1));
  if (allocation.range.bytes > small_bytes) return unmap_chunk(allocation.device, address);
  if (const auto region = memory.small.release({address, allocation.block_bytes})) {
    memory.small.remove_region(*region);
    unmap_chunk(allocation.device, region->base);
  }
}

CUresult Memory::export_chunk(const Allocation& allocation, Exported* exported) const {
  const auto& chunks = devices_[allocation.device].chunks;
  auto chunk = chunks.upper_bound(allocation.range.base);
  if (allocation.module || !allocation.context || chunk == chunks.begin()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  --chunk;
  int fd = -1;
  const CUresult result = driver_.cuMemExportToShareableHandle(
      &fd, chunk->second.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
  if (result != CUDA_SUCCESS) return result;
  *exported = {UniqueFd(fd), chunk->second.bytes, allocation.range.base - chunk->first,
               chunk->second.claim};
  return CUDA_SUCCESS;
}

CUresult Memory::import_chunk(const Context& context, unsigned device, Exported exported,
                              uint64_t bytes, CUdeviceptr* address) {
  Chunk chunk{0, exported.chunk_bytes, std::move(exported.claim), context.device};
  const auto fd = static_cast<intptr_t>(exported.chunk.get());
  CUresult result = driver_.cuMemImportFromShareableHandle(
      &chunk.handle, reinterpret_cast<void*>(fd), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  uint64_t base = 0;
  if (result == CUDA_SUCCESS) result = map_chunk(device, std::move(chunk), &base);
  if (result != CUDA_SUCCESS) return result;
  Allocation allocation;
  allocation.range = {base + exported.offset, bytes};
  allocation.block_bytes = bytes;
  allocation.device = device;
  allocation.context = &context;
  allocation.imported = true;
  *address = allocation.range.base;
  table_.emplace(*address, allocation);
  return CUDA_SUCCESS;
}

void Memory::add_global(const Module& module, Range range, bool managed) {
  Allocation allocation;
  allocation.range = range;
  allocation.block_bytes = range.bytes;
  allocation.device = module.context->device;
  allocation.context = module.context.get();
  allocation.module = &module;
  allocation.managed = managed;
  table_.try_emplace(range.base, allocation);
}

void Memory::remove_globals(const Module& module) {
  std::erase_if(table_, [&](const auto& entry) { return entry.second.module == &module; });
}

void Memory::release_all(const Context& context) {
  std::vector<CUdeviceptr> addresses;
  for (const auto& [address, allocation] : table_) {
    if (allocation.context == &context) addresses.push_back(address);
  }
  for (const CUdeviceptr address : addresses) release(address);
}

bool Memory::add_outside(unsigned device, Range range, bool host) {
  const auto after = table_.lower_bound(range.base);
  if (after != table_.end() && after->first - range.base < range.bytes) return false;
  if (after != table_.begin()) {
    const Range& before = std::prev(after)->second.range;
    if (range.base - before.base < before.bytes) return false;
  }
  Allocation allocation;
  allocation.range = range;
  allocation.block_bytes = range.bytes;
  allocation.device = device;
  allocation.host = host;
  table_.emplace_hint(after, range.base, allocation);
  return true;
}

const Allocation* Memory::find(CUdeviceptr address, uint64_t bytes) const {
  auto found = table_.upper_bound(address);
  if (found == table_.begin()) return nullptr;
  --found;
  const Allocation& first = found->second;
  const uint64_t offset = address - first.range.base;
  if (offset > first.range.bytes) return nullptr;
  // Mappings that the program laid side by side are one piece of memory to it.
  uint64_t held = first.range.bytes - offset;
  while (held < bytes && !found->second.context) {
    const uint64_t end = found->second.range.base + found->second.range.bytes;
    ++found;
    if (found == table_.end() || found->first != end || found->second.context) return nullptr;
    held += found->second.range.bytes;
  }
  return bytes <= held ? &first : nullptr;
}

// ---- commands -----------------------------------------------------------------------------------

CUresult execute(Worker& worker, const wire::command::MemoryAllocate& command,
                 wire::command::MemoryAllocate::Reply& reply) {
  const Context* context = worker.current();
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  CUdeviceptr address = 0;
  const CUresult result =
      worker.memory.allocate(*context, context->device, command.bytes, &address);
  reply.address = address;
  return result;
}

CUresult execute(Worker& worker, const wire::command::MemoryAllocateOrdered& command,
                 wire::command::MemoryAllocateOrdered::Reply& reply) {
  const Stream* stream = worker.tables.streams.find(command.stream);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (command.device >= worker.devices.size()) return CUDA_ERROR_INVALID_DEVICE;
  CUdeviceptr address = 0;
  const CUresult result =
      worker.memory.allocate(*stream->context, command.device, command.bytes, &address);
  reply.address = address;
  return result;
}

void execute(Worker& worker, const Request& request, const wire::command::MemoryFree& command) {
  Allocation* allocation = worker.memory.begins_at(command.address);
  if (!allocation) return worker.answer(request, CUDA_ERROR_INVALID_VALUE);
  const auto owner = worker.tables.contexts.share(allocation->context->id);
  if (!owner) return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  allocation->freed = true;
  const CUdeviceptr address = command.address;
  worker.completion.when_done(*owner, [&worker, request, address](CUresult result) {
    if (result == CUDA_SUCCESS) worker.memory.release(address);
    worker.answer(request, result);
  });
}

CUresult execute(Worker& worker, const wire::command::MemoryFreeOrdered& command) {
  Allocation* allocation = worker.memory.begins_at(command.address);
  if (!allocation) return CUDA_ERROR_INVALID_VALUE;
  if (worker.issuing().capture) return CUDA_ERROR_NOT_SUPPORTED;
  allocation->freed = true;
  const CUdeviceptr address = command.address;
  worker.completion.when_done(worker.issuing(), [&worker, address](CUresult result) {
    if (result == CUDA_SUCCESS) worker.memory.release(address);
  });
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::MemoryGetInfo& command,
                 wire::command::MemoryGetInfo::Reply& reply) {
  const Context* context = worker.current();
  const unsigned device = context ? context->device : command.device;
  if (device >= worker.devices.size()) return CUDA_ERROR_INVALID_DEVICE;
  const uint64_t limit = worker.share.limit(device);
  reply.total_bytes = limit;
  reply.free_bytes = limit - std::min(limit, worker.share.held(device));
  return CUDA_SUCCESS;
}

}  // namespace outboard::worker
