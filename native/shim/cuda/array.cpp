// Arrays and mipmapped arrays: their descriptions are kept here, their memory at the server.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/array.hpp"

#include <cstring>
#include <span>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUarray handle(Array* array) { return reinterpret_cast<CUarray>(array); }

std::span<const std::byte> bytes_of(const CUDA_ARRAY3D_DESCRIPTOR& descriptor) {
  return std::as_bytes(std::span(&descriptor, 1));
}

// The driver takes fields alone; what lies between them is the program's stack.
CUDA_ARRAY3D_DESCRIPTOR without_padding(const CUDA_ARRAY3D_DESCRIPTOR& from) {
  CUDA_ARRAY3D_DESCRIPTOR to;
  std::memset(&to, 0, sizeof to);
  to.Width = from.Width;
  to.Height = from.Height;
  to.Depth = from.Depth;
  to.Format = from.Format;
  to.NumChannels = from.NumChannels;
  to.Flags = from.Flags;
  return to;
}

// Notes what the server says of how the object is divided, if the program maps its memory.
template <typename Object>
void divide(Object* object, const CUDA_ARRAY3D_DESCRIPTOR& descriptor, unsigned levels,
            std::span<const std::byte> properties) {
  if (properties.size() == sizeof object->properties) {
    std::memcpy(&object->properties, properties.data(), sizeof object->properties);
  }
  object->tiles = wire::TileGrid(descriptor, levels, object->properties);
}

CUresult create(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR& wanted) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  Array* array = arrays.take();
  if (array == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  array->context = context;
  array->descriptor = without_padding(wanted);
  client::Answer<wire::command::ArrayCreate> answer;
  const CUresult result =
      call(context,
           wire::command::ArrayCreate{.array = array->head.id(),
                                      .descriptor = bytes_of(array->descriptor)},
           &answer);
  if (result != CUDA_SUCCESS) {
    arrays.give(array);
    return result;
  }
  divide(array, array->descriptor, 1, answer.reply.properties);
  *out = handle(array);
  return CUDA_SUCCESS;
}

// Forgets the parts of what is going.
void forget_parts(const void* whole) {
  arrays.for_each([whole](Array* array) {
    if (array->whole == whole) arrays.give(array);
  });
}

// Asks for a plane of `array` or a level of `mipmap`, whichever is not null.
CUresult make_part(Context* context, Array* array, MipmappedArray* mipmap, unsigned number,
                   Array** out) {
  Array* part = arrays.take();
  if (part == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  client::Answer<wire::command::ArrayPart> answer;
  CUresult result =
      call(context,
           wire::command::ArrayPart{.part = part->head.id(),
                                    .array = array != nullptr ? array->head.id() : 0,
                                    .mipmap = mipmap != nullptr ? mipmap->head.id() : 0,
                                    .number = number},
           &answer);
  if (result == CUDA_SUCCESS && answer.reply.descriptor.size() != sizeof part->descriptor) {
    result = CUDA_ERROR_UNKNOWN;
  }
  if (result != CUDA_SUCCESS) {
    arrays.give(part);
    return result;
  }
  std::memcpy(&part->descriptor, answer.reply.descriptor.data(), sizeof part->descriptor);
  part->context = context;
  part->whole = array != nullptr ? static_cast<const void*>(array) : mipmap;
  *out = part;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuArray3DCreate_v2(CUarray* pHandle, const CUDA_ARRAY3D_DESCRIPTOR* pAllocateArray) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (pHandle == nullptr || pAllocateArray == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return create(pHandle, *pAllocateArray);
}

CUresult cuArrayCreate_v2(CUarray* pHandle, const CUDA_ARRAY_DESCRIPTOR* pAllocateArray) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (pHandle == nullptr || pAllocateArray == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  descriptor.Width = pAllocateArray->Width;
  descriptor.Height = pAllocateArray->Height;
  descriptor.Format = pAllocateArray->Format;
  descriptor.NumChannels = pAllocateArray->NumChannels;
  return create(pHandle, descriptor);
}

CUresult cuArrayDestroy(CUarray hArray) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Array* array = find(hArray);
  if (array == nullptr || array->whole != nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::ArrayDestroy> answer;
  const CUresult result =
      call(array->context, wire::command::ArrayDestroy{.array = array->head.id()}, &answer);
  forget_parts(array);
  arrays.give(array);
  return result;
}

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR* pArrayDescriptor, CUarray hArray) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Array* array = find(hArray);
  if (pArrayDescriptor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *pArrayDescriptor = array->descriptor;
  return CUDA_SUCCESS;
}

CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR* pArrayDescriptor, CUarray hArray) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Array* array = find(hArray);
  if (pArrayDescriptor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  pArrayDescriptor->Width = array->descriptor.Width;
  pArrayDescriptor->Height = array->descriptor.Height;
  pArrayDescriptor->Format = array->descriptor.Format;
  pArrayDescriptor->NumChannels = array->descriptor.NumChannels;
  return CUDA_SUCCESS;
}

CUresult cuArrayGetPlane(CUarray* pPlaneArray, CUarray hArray, unsigned int planeIdx) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Array* array = find(hArray);
  if (pPlaneArray == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Array* part = nullptr;
  const CUresult result = make_part(array->context, array, nullptr, planeIdx, &part);
  if (result == CUDA_SUCCESS) *pPlaneArray = handle(part);
  return result;
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray* pHandle,
                                const CUDA_ARRAY3D_DESCRIPTOR* pMipmappedArrayDesc,
                                unsigned int numMipmapLevels) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pHandle == nullptr || pMipmappedArrayDesc == nullptr || numMipmapLevels == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUDA_ARRAY3D_DESCRIPTOR descriptor = without_padding(*pMipmappedArrayDesc);
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  MipmappedArray* mipmap = mipmapped_arrays.take();
  if (mipmap == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  client::Answer<wire::command::MipmappedArrayCreate> answer;
  const CUresult result =
      call(context,
           wire::command::MipmappedArrayCreate{.mipmap = mipmap->head.id(),
                                               .levels = numMipmapLevels,
                                               .descriptor = bytes_of(descriptor)},
           &answer);
  if (result != CUDA_SUCCESS) {
    mipmapped_arrays.give(mipmap);
    return result;
  }
  mipmap->context = context;
  mipmap->levels = numMipmapLevels;
  divide(mipmap, descriptor, numMipmapLevels, answer.reply.properties);
  *pHandle = reinterpret_cast<CUmipmappedArray>(mipmap);
  return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  MipmappedArray* mipmap = find(hMipmappedArray);
  if (mipmap == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::MipmappedArrayDestroy> answer;
  const CUresult result = call(
      mipmap->context, wire::command::MipmappedArrayDestroy{.mipmap = mipmap->head.id()}, &answer);
  forget_parts(mipmap);
  mipmapped_arrays.give(mipmap);
  return result;
}

CUresult cuMipmappedArrayGetLevel(CUarray* pLevelArray, CUmipmappedArray hMipmappedArray,
                                  unsigned int level) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  MipmappedArray* mipmap = find(hMipmappedArray);
  if (mipmap == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (pLevelArray == nullptr || level >= mipmap->levels) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard guard(mipmap->mutex);
  Array*& part = mipmap->parts[level];
  if (part == nullptr) {
    const CUresult result = make_part(mipmap->context, nullptr, mipmap, level, &part);
    if (result != CUDA_SUCCESS) return result;
  }
  *pLevelArray = handle(part);
  return CUDA_SUCCESS;
}

void forget_arrays(const Context* context) {
  arrays.for_each([context](Array* array) {
    if (array->context == context) arrays.give(array);
  });
  mipmapped_arrays.for_each([context](MipmappedArray* mipmap) {
    if (mipmap->context == context) mipmapped_arrays.give(mipmap);
  });
  forget_textures(context);
  forget_texture_references(context);
}

}  // namespace outboard::shim
