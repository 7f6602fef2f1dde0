// Texture and surface objects.
// SPDX-License-Identifier: Apache-2.0
#include "wire/volume.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

// Whether rows of a two-dimensional texture, or linear memory, lie in one piece of memory.
bool contains(const Worker& worker, const wire::Resource& resource) {
  uint64_t bytes = resource.width;
  if (resource.type == CU_RESOURCE_TYPE_PITCH2D &&
      __builtin_mul_overflow(resource.pitch, resource.height, &bytes)) {
    return false;
  }
  if (resource.type == CU_RESOURCE_TYPE_PITCH2D && resource.height != 0) {
    bytes -= resource.pitch;  // the last row need not be followed by its padding
    if (__builtin_add_overflow(bytes, resource.width, &bytes)) return false;
  }
  return worker.memory.contains(resource.address, bytes);
}

CUresult read_resource(const Worker& worker, const wire::Resource& from, CUDA_RESOURCE_DESC* to) {
  *to = {};
  to->resType = static_cast<CUresourcetype>(from.type);
  const Array* array = worker.tables.arrays.find(from.id);
  const MipmappedArray* mipmap = worker.tables.mipmaps.find(from.id);
  switch (from.type) {
    case CU_RESOURCE_TYPE_ARRAY:
      if (!array || array->freed) return CUDA_ERROR_INVALID_HANDLE;
      to->res.array.hArray = array->handle;
      return CUDA_SUCCESS;
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
      if (!mipmap || mipmap->freed) return CUDA_ERROR_INVALID_HANDLE;
      to->res.mipmap.hMipmappedArray = mipmap->handle;
      return CUDA_SUCCESS;
    case CU_RESOURCE_TYPE_LINEAR:
      to->res.linear.devPtr = from.address;
      to->res.linear.format = static_cast<CUarray_format>(from.format);
      to->res.linear.numChannels = static_cast<unsigned>(from.channels);
      to->res.linear.sizeInBytes = from.width;
      break;
    case CU_RESOURCE_TYPE_PITCH2D:
      to->res.pitch2D.devPtr = from.address;
      to->res.pitch2D.format = static_cast<CUarray_format>(from.format);
      to->res.pitch2D.numChannels = static_cast<unsigned>(from.channels);
      to->res.pitch2D.width = from.width;
      to->res.pitch2D.height = from.height;
      to->res.pitch2D.pitchInBytes = from.pitch;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  return contains(worker, from) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// Ends an object once the work is done that may read through it.
template <typename Destroy>
CUresult end(Worker& worker, ContextObjects& objects, uint64_t object, Destroy destroy) {
  const Context* current = worker.current();
  if (!current || objects.erase({current, object}) == 0) return CUDA_ERROR_INVALID_VALUE;
  const auto context = worker.tables.contexts.share(current->id);
  worker.completion.when_done(*context, [&worker, context, object, destroy](CUresult result) {
    if (result != CUDA_SUCCESS || !context->alive) return;
    worker.make_current(*context);
    destroy(object);
  });
  return CUDA_SUCCESS;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::TextureCreate& command,
                 wire::command::TextureCreate::Reply& reply) {
  if (!worker.current()) return CUDA_ERROR_INVALID_CONTEXT;
  wire::Resource from;
  CUDA_RESOURCE_DESC resource;
  CUDA_TEXTURE_DESC texture;
  CUDA_RESOURCE_VIEW_DESC view;
  if (!wire::read_packed(command.resource, &from) ||
      !wire::read_packed(command.texture, &texture) ||
      (!command.view.empty() && !wire::read_packed(command.view, &view))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  CUresult result = read_resource(worker, from, &resource);
  if (result != CUDA_SUCCESS) return result;
  CUtexObject object = 0;
  result = worker.driver().cuTexObjectCreate(&object, &resource, &texture,
                                             command.view.empty() ? nullptr : &view);
  if (result != CUDA_SUCCESS) return result;
  worker.tables.textures.emplace(worker.current(), object);
  reply.object = object;
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::SurfaceCreate& command,
                 wire::command::SurfaceCreate::Reply& reply) {
  if (!worker.current()) return CUDA_ERROR_INVALID_CONTEXT;
  const Array* array = worker.tables.arrays.find(command.array);
  if (!array || array->freed) return CUDA_ERROR_INVALID_HANDLE;
  CUDA_RESOURCE_DESC resource = {};
  resource.resType = CU_RESOURCE_TYPE_ARRAY;
  resource.res.array.hArray = array->handle;
  CUsurfObject object = 0;
  const CUresult result = worker.driver().cuSurfObjectCreate(&object, &resource);
  if (result != CUDA_SUCCESS) return result;
  worker.tables.surfaces.emplace(worker.current(), object);
  reply.object = object;
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::TextureDestroy& command) {
  return end(worker, worker.tables.textures, command.object,
             [&worker](uint64_t object) { worker.driver().cuTexObjectDestroy(object); });
}

CUresult execute(Worker& worker, const wire::command::SurfaceDestroy& command) {
  return end(worker, worker.tables.surfaces, command.object,
             [&worker](uint64_t object) { worker.driver().cuSurfObjectDestroy(object); });
}

}  // namespace outboard::worker
