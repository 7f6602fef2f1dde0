// Texture and surface references: finding them in modules, and binding them to memory.
// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "wire/volume.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

// Of a library the module that it is in the current context.
CUresult module_of(const Driver& driver, const Module& module, CUmodule* handle) {
  *handle = module.module;
  return module.library ? driver.cuLibraryGetModule(handle, module.library) : CUDA_SUCCESS;
}

// The id of the object that the driver means; 0: none of the client's.
template <typename T, typename Handle>
uint64_t id_of(const ObjectTable<T>& table, Handle handle) {
  uint64_t found = 0;
  table.each_named([&](uint64_t id, const T& object) {
    if (object.handle == handle) found = id;
  });
  return found;
}

bool contains(const Worker& worker, const wire::command::TextureReferenceBindMemory& command) {
  uint64_t bytes = command.bytes;
  if (command.address == 0) return true;  // bound to nothing
  if (command.height != 0 && __builtin_mul_overflow(command.pitch, command.height, &bytes)) {
    return false;
  }
  return worker.memory.contains(command.address, bytes);
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::ModuleGetReference& command,
                 wire::command::ModuleGetReference::Reply&) {
  const Module* module = worker.tables.modules.find(command.module);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  if (!worker.accept_create(worker.tables.references.may_insert(command.reference))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  worker.make_current(*module->context);
  const Driver& driver = worker.driver();
  CUmodule handle = nullptr;
  CUresult result = module_of(driver, *module, &handle);
  if (result != CUDA_SUCCESS) return result;
  auto reference = std::make_shared<TextureReference>();
  reference->context = module->context;
  reference->module = module;
  const std::string name(command.name);
  result = command.surface != 0
               ? driver.cuModuleGetSurfRef(&reference->surface, handle, name.c_str())
               : driver.cuModuleGetTexRef(&reference->texture, handle, name.c_str());
  if (result == CUDA_SUCCESS) {
    worker.tables.references.insert(command.reference, std::move(reference));
  }
  return result;
}

CUresult execute(Worker& worker, const wire::command::TextureReferenceCreate& command,
                 wire::command::TextureReferenceCreate::Reply&) {
  const Context* current = worker.current();
  if (!current) return CUDA_ERROR_INVALID_CONTEXT;
  if (!worker.accept_create(worker.tables.references.may_insert(command.reference))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  auto reference = std::make_shared<TextureReference>();
  reference->context = worker.tables.contexts.share(current->id);
  const CUresult result = worker.driver().cuTexRefCreate(&reference->texture);
  if (result == CUDA_SUCCESS) {
    worker.tables.references.insert(command.reference, std::move(reference));
  }
  return result;
}

CUresult execute(Worker& worker, const wire::command::TextureReferenceDestroy& command,
                 wire::command::TextureReferenceDestroy::Reply&) {
  const auto reference = worker.tables.references.remove(command.reference);
  if (!reference || !reference->texture) return CUDA_ERROR_INVALID_HANDLE;
  return worker.driver().cuTexRefDestroy(reference->texture);
}

CUresult execute(Worker& worker, const wire::command::TextureReferenceBindMemory& command,
                 wire::command::TextureReferenceBindMemory::Reply& reply) {
  const TextureReference* reference = worker.tables.references.find(command.reference);
  if (!reference || !reference->texture) return CUDA_ERROR_INVALID_HANDLE;
  if (!contains(worker, command)) return CUDA_ERROR_INVALID_VALUE;
  if (command.height != 0) {
    CUDA_ARRAY_DESCRIPTOR rows = {};
    rows.Width = command.width;
    rows.Height = command.height;
    rows.Format = static_cast<CUarray_format>(command.format);
    rows.NumChannels = command.channels;
    return worker.driver().cuTexRefSetAddress2D_v3(reference->texture, &rows, command.address,
                                                   command.pitch);
  }
  size_t offset = 0;
  const CUresult result = worker.driver().cuTexRefSetAddress_v2(&offset, reference->texture,
                                                                command.address, command.bytes);
  reply.offset = offset;
  return result;
}

CUresult execute(Worker& worker, const wire::command::TextureReferenceQuery& command,
                 wire::command::TextureReferenceQuery::Reply& reply) {
  const TextureReference* reference = worker.tables.references.find(command.reference);
  const auto what = static_cast<wire::ReferenceQuery>(command.what);
  const bool surface = what == wire::ReferenceQuery::surface_array;
  if (!reference || (surface ? !reference->surface : !reference->texture)) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  const Driver& driver = worker.driver();
  CUdeviceptr address = 0;
  CUarray array = nullptr;
  CUmipmappedArray mipmap = nullptr;
  CUarray_format format = {};
  int channels = 0;
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  switch (what) {
    case wire::ReferenceQuery::address:
      result = driver.cuTexRefGetAddress_v2(&address, reference->texture);
      reply.value = address;
      break;
    case wire::ReferenceQuery::array:
    case wire::ReferenceQuery::surface_array:
      result = surface ? driver.cuSurfRefGetArray(&array, reference->surface)
                       : driver.cuTexRefGetArray(&array, reference->texture);
      reply.value = id_of(worker.tables.arrays, array);
      break;
    case wire::ReferenceQuery::mipmapped_array:
      result = driver.cuTexRefGetMipmappedArray(&mipmap, reference->texture);
      reply.value = id_of(worker.tables.mipmaps, mipmap);
      break;
    case wire::ReferenceQuery::format:
      result = driver.cuTexRefGetFormat(&format, &channels, reference->texture);
      reply.value = static_cast<uint64_t>(format);
      reply.second = static_cast<uint64_t>(channels);
      break;
  }
  return result;
}

}  // namespace outboard::worker
