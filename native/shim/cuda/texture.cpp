// Texture and surface objects: made by the server, described here.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/array.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "wire/volume.hpp"

namespace outboard::shim {
namespace {

struct Texture {
  CUDA_RESOURCE_DESC resource{};
  CUDA_TEXTURE_DESC texture{};
  std::optional<CUDA_RESOURCE_VIEW_DESC> view;
};

// The driver's numbers, which contexts may have in common.
struct Objects {
  std::mutex mutex;
  std::map<std::pair<const Context*, uint64_t>, Texture> textures;
  std::map<std::pair<const Context*, uint64_t>, CUDA_RESOURCE_DESC> surfaces;
};

Objects& objects() {
  static auto* const instance = new Objects;
  return *instance;
}

CUresult read_resource(const CUDA_RESOURCE_DESC& from, wire::Resource* to) {
  to->type = static_cast<uint32_t>(from.resType);
  const Array* array = nullptr;
  const MipmappedArray* mipmap = nullptr;
  switch (from.resType) {
    case CU_RESOURCE_TYPE_ARRAY:
      array = find(from.res.array.hArray);
      if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
      to->id = array->head.id();
      return CUDA_SUCCESS;
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
      mipmap = find(from.res.mipmap.hMipmappedArray);
      if (mipmap == nullptr) return CUDA_ERROR_INVALID_HANDLE;
      to->id = mipmap->head.id();
      return CUDA_SUCCESS;
    case CU_RESOURCE_TYPE_LINEAR:
      to->address = from.res.linear.devPtr;
      to->format = static_cast<uint32_t>(from.res.linear.format);
      to->channels = from.res.linear.numChannels;
      to->width = from.res.linear.sizeInBytes;
      return CUDA_SUCCESS;
    case CU_RESOURCE_TYPE_PITCH2D:
      to->address = from.res.pitch2D.devPtr;
      to->format = static_cast<uint32_t>(from.res.pitch2D.format);
      to->channels = from.res.pitch2D.numChannels;
      to->width = from.res.pitch2D.width;
      to->height = from.res.pitch2D.height;
      to->pitch = from.res.pitch2D.pitchInBytes;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

// Looks an object up and gives one thing of it.
template <typename Object, typename Out, typename Get>
CUresult tell(const std::map<std::pair<const Context*, uint64_t>, Object>& all, uint64_t object,
              Out* out, Get get) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(objects().mutex);
  const auto found = all.find({context, object});
  if (out == nullptr || found == all.end()) return CUDA_ERROR_INVALID_VALUE;
  return get(found->second);
}

template <typename Command, typename Object>
CUresult destroy(std::map<std::pair<const Context*, uint64_t>, Object>& all, uint64_t object) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  {
    const std::lock_guard guard(objects().mutex);
    if (all.erase({context, object}) == 0) return CUDA_ERROR_INVALID_VALUE;
  }
  return send(context, Command{.object = object});
}

}  // namespace

CUresult cuTexObjectCreate(CUtexObject* pTexObject, const CUDA_RESOURCE_DESC* pResDesc,
                           const CUDA_TEXTURE_DESC* pTexDesc,
                           const CUDA_RESOURCE_VIEW_DESC* pResViewDesc) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pTexObject == nullptr || pResDesc == nullptr || pTexDesc == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  wire::Resource resource;
  if (const CUresult result = read_resource(*pResDesc, &resource); result != CUDA_SUCCESS) {
    return result;
  }
  client::Answer<wire::command::TextureCreate> answer;
  wire::command::TextureCreate command;
  command.resource = bytes_of(resource);
  command.texture = bytes_of(*pTexDesc);
  if (pResViewDesc != nullptr) command.view = bytes_of(*pResViewDesc);
  const CUresult result = call(context, command, &answer);
  if (result != CUDA_SUCCESS) return result;
  Texture texture;
  texture.resource = *pResDesc;
  texture.texture = *pTexDesc;
  if (pResViewDesc != nullptr) texture.view = *pResViewDesc;
  const std::lock_guard guard(objects().mutex);
  objects().textures[{context, answer.reply.object}] = texture;
  *pTexObject = answer.reply.object;
  return CUDA_SUCCESS;
}

CUresult cuTexObjectDestroy(CUtexObject texObject) {
  return destroy<wire::command::TextureDestroy>(objects().textures, texObject);
}

CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC* pResDesc, CUtexObject texObject) {
  return tell(objects().textures, texObject, pResDesc, [pResDesc](const Texture& texture) {
    *pResDesc = texture.resource;
    return CUDA_SUCCESS;
  });
}

CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC* pTexDesc, CUtexObject texObject) {
  return tell(objects().textures, texObject, pTexDesc, [pTexDesc](const Texture& texture) {
    *pTexDesc = texture.texture;
    return CUDA_SUCCESS;
  });
}

CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC* pResViewDesc,
                                        CUtexObject texObject) {
  return tell(objects().textures, texObject, pResViewDesc, [pResViewDesc](const Texture& texture) {
    if (!texture.view) return CUDA_ERROR_INVALID_VALUE;
    *pResViewDesc = *texture.view;
    return CUDA_SUCCESS;
  });
}

CUresult cuSurfObjectCreate(CUsurfObject* pSurfObject, const CUDA_RESOURCE_DESC* pResDesc) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pSurfObject == nullptr || pResDesc == nullptr ||
      pResDesc->resType != CU_RESOURCE_TYPE_ARRAY) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Array* array = find(pResDesc->res.array.hArray);
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  client::Answer<wire::command::SurfaceCreate> answer;
  const CUresult result =
      call(context, wire::command::SurfaceCreate{.array = array->head.id()}, &answer);
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(objects().mutex);
  objects().surfaces[{context, answer.reply.object}] = *pResDesc;
  *pSurfObject = answer.reply.object;
  return CUDA_SUCCESS;
}

CUresult cuSurfObjectDestroy(CUsurfObject surfObject) {
  return destroy<wire::command::SurfaceDestroy>(objects().surfaces, surfObject);
}

CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC* pResDesc, CUsurfObject surfObject) {
  return tell(objects().surfaces, surfObject, pResDesc, [pResDesc](const CUDA_RESOURCE_DESC& one) {
    *pResDesc = one;
    return CUDA_SUCCESS;
  });
}

void forget_textures(const Context* context) {
  const std::lock_guard guard(objects().mutex);
  const auto inside = [context](const auto& entry) { return entry.first.first == context; };
  std::erase_if(objects().textures, inside);
  std::erase_if(objects().surfaces, inside);
}

}  // namespace outboard::shim
