// Arrays whose memory the program maps: their division, and the mapping of tiles.
// SPDX-License-Identifier: Apache-2.0
#include "worker/sparse_arrays.hpp"

#include <cstring>
#include <utility>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

// `ask` fills in the properties of a sparse array, `requirements` the size of a deferred one, which
// travels as that of the tail: all of it is one.
template <typename Ask, typename Requirements>
CUresult divide(const CUDA_ARRAY3D_DESCRIPTOR& descriptor, unsigned levels, Ask&& ask,
                Requirements&& requirements, std::unique_ptr<Tiles>* out) {
  if ((descriptor.Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) == 0) {
    return CUDA_SUCCESS;
  }
  auto tiles = std::make_unique<Tiles>();
  CUDA_ARRAY_MEMORY_REQUIREMENTS whole{};
  const bool sparse = (descriptor.Flags & CUDA_ARRAY3D_SPARSE) != 0;
  const CUresult result = sparse ? ask(&tiles->properties) : requirements(&whole);
  if (result != CUDA_SUCCESS) return result;
  if (!sparse) tiles->properties.miptailSize = whole.size;
  tiles->grid = wire::TileGrid(descriptor, levels, tiles->properties);
  tiles->memory.resize(tiles->grid.count());
  *out = std::move(tiles);
  return CUDA_SUCCESS;
}

// What one mapping changes.
struct Change {
  Tiles* tiles;
  std::vector<uint64_t> which;
  std::shared_ptr<PhysicalMemory> memory;
};

// Where the tiles are, and the driver's name of the array.
CUresult find_tiles(Worker& worker, const wire::TileMapping& mapping, Tiles** tiles,
                    CUarrayMapInfo* info) {
  const Array* array = worker.tables.arrays.find(mapping.array);
  const MipmappedArray* mipmap = worker.tables.mipmaps.find(mapping.mipmap);
  if (array ? array->freed : !mipmap || mipmap->freed) return CUDA_ERROR_INVALID_HANDLE;
  const Context& context = array ? *array->context : *mipmap->context;
  *tiles = array ? array->tiles.get() : mipmap->tiles.get();
  if (!*tiles || context.device != worker.issuing().context->device) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  info->resourceType = array ? CU_RESOURCE_TYPE_ARRAY : CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
  if (array) info->resource.array = array->handle;
  if (!array) info->resource.mipmap = mipmap->handle;
  return CUDA_SUCCESS;
}

void write_place(const wire::TileMapping& mapping, CUarrayMapInfo* info) {
  auto& level = info->subresource.sparseLevel;
  auto& tail = info->subresource.miptail;
  if (mapping.tail_size == 0) {
    info->subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL;
    level = {mapping.level, mapping.layer,     mapping.at[0],     mapping.at[1],
             mapping.at[2], mapping.extent[0], mapping.extent[1], mapping.extent[2]};
  } else {
    info->subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL;
    tail = {mapping.layer, mapping.tail_offset, mapping.tail_size};
  }
}

CUresult read(Worker& worker, const wire::TileMapping& mapping,
              const std::shared_ptr<PhysicalMemory>& memory, Change* change, CUarrayMapInfo* info) {
  const unsigned device = worker.issuing().context->device;
  if (const CUresult result = find_tiles(worker, mapping, &change->tiles, info);
      result != CUDA_SUCCESS) {
    return result;
  }
  const wire::TileGrid& grid = change->tiles->grid;
  change->which = grid.tiles_of(mapping);
  if (change->which.empty()) return CUDA_ERROR_INVALID_VALUE;
  write_place(mapping, info);
  info->deviceBitMask = 1U << worker.devices[device].handle;
  info->memOperationType = CU_MEM_OPERATION_TYPE_UNMAP;
  if (mapping.memory == 0) return CUDA_SUCCESS;
  if (!memory) return CUDA_ERROR_INVALID_HANDLE;
  if (memory->device != device || mapping.offset > memory->bytes ||
      grid.bytes(change->which.size()) > memory->bytes - mapping.offset) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  info->memOperationType = CU_MEM_OPERATION_TYPE_MAP;
  info->memHandle.memHandle = memory->handle;
  info->offset = mapping.offset;
  change->memory = memory;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult divide(const Driver& driver, CUdevice device, const CUDA_ARRAY3D_DESCRIPTOR& descriptor,
                Array* array) {
  const CUresult result = divide(
      descriptor, 1,
      [&](auto* out) { return driver.cuArrayGetSparseProperties(out, array->handle); },
      [&](auto* out) { return driver.cuArrayGetMemoryRequirements(out, array->handle, device); },
      &array->tiles);
  if (result != CUDA_SUCCESS) driver.cuArrayDestroy(array->handle);
  return result;
}

CUresult divide(const Driver& driver, CUdevice device, const CUDA_ARRAY3D_DESCRIPTOR& descriptor,
                unsigned levels, MipmappedArray* mipmap) {
  const CUmipmappedArray handle = mipmap->handle;
  const CUresult result = divide(
      descriptor, levels,
      [&](auto* out) { return driver.cuMipmappedArrayGetSparseProperties(out, handle); },
      [&](auto* out) { return driver.cuMipmappedArrayGetMemoryRequirements(out, handle, device); },
      &mipmap->tiles);
  if (result != CUDA_SUCCESS) driver.cuMipmappedArrayDestroy(handle);
  return result;
}

std::vector<wire::TileMapping> read_mappings(std::span<const std::byte> bytes) {
  if (bytes.size() % sizeof(wire::TileMapping) != 0) return {};
  std::vector<wire::TileMapping> mappings(bytes.size() / sizeof(wire::TileMapping));
  if (!bytes.empty()) std::memcpy(mappings.data(), bytes.data(), bytes.size());
  return mappings;
}

CUresult execute(Worker& worker, const wire::command::ArrayMap& command) {
  const std::vector<wire::TileMapping> mappings = read_mappings(command.mappings);
  if (mappings.empty()) return CUDA_ERROR_INVALID_VALUE;
  std::vector<Change> changes(mappings.size());
  std::vector<CUarrayMapInfo> infos(mappings.size());
  for (size_t i = 0; i < mappings.size(); ++i) {
    const CUresult result =
        read(worker, mappings[i], worker.issuing_memories()[i], &changes[i], &infos[i]);
    if (result != CUDA_SUCCESS) return result;
  }
  Stream& stream = worker.issuing();
  const CUresult result = worker.driver().cuMemMapArrayAsync(
      infos.data(), static_cast<unsigned>(infos.size()), stream.handle);
  if (result != CUDA_SUCCESS) return result;
  std::vector<std::shared_ptr<PhysicalMemory>> lost;
  for (const Change& change : changes) {
    for (const uint64_t tile : change.which) {
      auto& memory = change.tiles->memory[tile];
      if (memory && memory != change.memory && (lost.empty() || lost.back() != memory)) {
        lost.push_back(memory);
      }
      memory = change.memory;
    }
  }
  // What the tiles had is in use until the stream gets here.
  if (!lost.empty()) worker.completion.when_done(stream, [lost = std::move(lost)](CUresult) {});
  return CUDA_SUCCESS;
}

}  // namespace outboard::worker
