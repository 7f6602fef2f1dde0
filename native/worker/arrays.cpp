// Arrays: making, ending, and the share that they take.
// SPDX-License-Identifier: Apache-2.0
#include "worker/arrays.hpp"

#include <algorithm>
#include <cstring>

#include "wire/volume.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

constexpr unsigned supported_flags =
    CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_CUBEMAP |
    CUDA_ARRAY3D_TEXTURE_GATHER | CUDA_ARRAY3D_DEPTH_TEXTURE | CUDA_ARRAY3D_COLOR_ATTACHMENT |
    CUDA_ARRAY3D_VIDEO_ENCODE_DECODE | CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING;
constexpr uint64_t array_granule_bytes = 64 << 10;

uint64_t channel_bytes(CUarray_format format) {
  switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      return 4;
    default:
      return 1;  // 8-bit formats; of packed and compressed ones nearly so
  }
}

// What an array takes. The driver does not say it of ordinary arrays; its layout pads to tiles. Of
// others the memory counts that the program maps.
bool array_bytes(const CUDA_ARRAY3D_DESCRIPTOR& of, uint64_t* bytes) {
  *bytes = 0;
  if ((of.Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) != 0) return true;
  *bytes = channel_bytes(of.Format);
  const uint64_t factors[] = {of.Width, std::max<uint64_t>(of.Height, 1),
                              std::max<uint64_t>(of.Depth, 1), std::max(of.NumChannels, 1u)};
  for (const uint64_t factor : factors) {
    if (__builtin_mul_overflow(*bytes, factor, bytes)) return false;
  }
  if (__builtin_add_overflow(*bytes, array_granule_bytes - 1, bytes)) return false;
  *bytes &= ~(array_granule_bytes - 1);
  return true;
}

CUresult read_descriptor(std::span<const std::byte> bytes, CUDA_ARRAY3D_DESCRIPTOR* descriptor) {
  if (!wire::read_packed(bytes, descriptor)) return CUDA_ERROR_INVALID_VALUE;
  return (descriptor->Flags & ~supported_flags) == 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

std::span<const std::byte> bytes_of(const CUDA_ARRAY_SPARSE_PROPERTIES& properties) {
  return std::as_bytes(std::span(&properties, 1));
}

// Makes an object of `bytes` in the current context, counted against the share.
template <typename T, typename Make>
CUresult make(Worker& worker, ObjectTable<T>& table, uint64_t id, uint64_t bytes, Make&& driver) {
  Context* current = worker.current();
  if (!worker.accept_create(table.may_insert(id))) return CUDA_ERROR_INVALID_HANDLE;
  if (!current) return CUDA_ERROR_INVALID_CONTEXT;
  if (!worker.share.reserve(current->device, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  auto object = std::make_shared<T>();
  object->context = worker.tables.contexts.share(current->id);
  object->bytes = bytes;
  const CUresult result = driver(*object, worker.devices[current->device].handle);
  if (result != CUDA_SUCCESS) {
    worker.share.release(current->device, bytes);
    return result;
  }
  table.insert(id, std::move(object));
  return CUDA_SUCCESS;
}

// Ends an object once the context's work is done, with the parts of it that were asked for.
template <typename T, typename Destroy>
void end(Worker& worker, const Request& request, ObjectTable<T>& table, uint64_t id,
         Destroy destroy) {
  const std::shared_ptr<T> object = table.share(id);
  if (!object || object->freed) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  object->freed = true;
  worker.completion.when_done(
      *object->context, [&worker, &table, request, id, object, destroy](CUresult result) {
        // Of a dead context too: the client uses the slot again.
        if (table.find(id) == object.get()) {
          worker.make_current(*object->context);
          const CUresult destroyed = destroy(*object);
          if (result == CUDA_SUCCESS) result = destroyed;
          worker.share.release(object->context->device, object->bytes);
          table.remove(id);
          worker.tables.arrays.remove_where(
              [&object](const Array& part) { return part.parent == object.get(); });
        }
        worker.answer(request, result);
      });
}

}  // namespace

void end_arrays(Worker& worker, const Context& context) {
  Tables& tables = worker.tables;
  const auto inside = [&](const auto& object) {
    if (object.context.get() != &context) return false;
    worker.share.release(context.device, object.bytes);
    return true;
  };
  tables.arrays.remove_where(inside);
  tables.mipmaps.remove_where(inside);
  tables.references.remove_where(
      [&](const TextureReference& one) { return one.context.get() == &context; });
  const auto object_inside = [&](const auto& entry) { return entry.first == &context; };
  std::erase_if(tables.textures, object_inside);
  std::erase_if(tables.surfaces, object_inside);
}

CUresult execute(Worker& worker, const wire::command::ArrayCreate& command,
                 wire::command::ArrayCreate::Reply& reply) {
  CUDA_ARRAY3D_DESCRIPTOR descriptor;
  uint64_t bytes = 0;
  if (const CUresult result = read_descriptor(command.descriptor, &descriptor);
      result != CUDA_SUCCESS) {
    return result;
  }
  if (!array_bytes(descriptor, &bytes)) return CUDA_ERROR_INVALID_VALUE;
  const Driver& driver = worker.driver();
  return make(worker, worker.tables.arrays, command.array, bytes,
              [&](Array& array, CUdevice device) {
                CUresult result = driver.cuArray3DCreate_v2(&array.handle, &descriptor);
                if (result == CUDA_SUCCESS) result = divide(driver, device, descriptor, &array);
                if (array.tiles) reply.properties = bytes_of(array.tiles->properties);
                return result;
              });
}

CUresult execute(Worker& worker, const wire::command::MipmappedArrayCreate& command,
                 wire::command::MipmappedArrayCreate::Reply& reply) {
  CUDA_ARRAY3D_DESCRIPTOR descriptor;
  uint64_t bytes = 0;
  if (const CUresult result = read_descriptor(command.descriptor, &descriptor);
      result != CUDA_SUCCESS) {
    return result;
  }
  // No extent has more halvings; the driver makes as many levels as there can be.
  constexpr uint32_t most_levels = 32;
  const uint32_t levels = std::min(command.levels, most_levels);
  if (!array_bytes(descriptor, &bytes)) return CUDA_ERROR_INVALID_VALUE;
  // Each further level is at most half of the one before; one level is the whole.
  if (command.levels > 1) bytes *= 2;
  const Driver& driver = worker.driver();
  return make(worker, worker.tables.mipmaps, command.mipmap, bytes,
              [&](MipmappedArray& mipmap, CUdevice device) {
                CUresult result =
                    driver.cuMipmappedArrayCreate(&mipmap.handle, &descriptor, levels);
                if (result == CUDA_SUCCESS) {
                  result = divide(driver, device, descriptor, levels, &mipmap);
                }
                if (mipmap.tiles) reply.properties = bytes_of(mipmap.tiles->properties);
                return result;
              });
}

void execute(Worker& worker, const Request& request, const wire::command::ArrayDestroy& command) {
  const Array* array = worker.tables.arrays.find(command.array);
  if (array && array->parent) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  end(worker, request, worker.tables.arrays, command.array,
      [&worker](const Array& one) { return worker.driver().cuArrayDestroy(one.handle); });
}

void execute(Worker& worker, const Request& request,
             const wire::command::MipmappedArrayDestroy& command) {
  end(worker, request, worker.tables.mipmaps, command.mipmap, [&worker](const MipmappedArray& one) {
    return worker.driver().cuMipmappedArrayDestroy(one.handle);
  });
}

CUresult execute(Worker& worker, const wire::command::ArrayPart& command,
                 wire::command::ArrayPart::Reply& reply) {
  // The reply's span must outlive this call.
  static thread_local CUDA_ARRAY3D_DESCRIPTOR descriptor;
  Tables& tables = worker.tables;
  if (!worker.accept_create(tables.arrays.may_insert(command.part))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  const Driver& driver = worker.driver();
  const Array* array = tables.arrays.find(command.array);
  const MipmappedArray* mipmap = tables.mipmaps.find(command.mipmap);
  if ((array ? array->freed : true) && (mipmap ? mipmap->freed : true)) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  auto part = std::make_shared<Array>();
  part->context = array ? array->context : mipmap->context;
  part->parent = array ? static_cast<const void*>(array) : mipmap;
  CUresult result =
      array ? driver.cuArrayGetPlane(&part->handle, array->handle, command.number)
            : driver.cuMipmappedArrayGetLevel(&part->handle, mipmap->handle, command.number);
  if (result != CUDA_SUCCESS) return result;
  descriptor = {};
  result = driver.cuArray3DGetDescriptor_v2(&descriptor, part->handle);
  if (result != CUDA_SUCCESS) return result;
  tables.arrays.insert(command.part, std::move(part));
  reply.descriptor = std::as_bytes(std::span(&descriptor, 1));
  return CUDA_SUCCESS;
}

}  // namespace outboard::worker
