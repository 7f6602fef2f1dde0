// Entry points of texture and surface objects.
// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <optional>

#include "guard.hpp"
#include "texture.hpp"

using namespace softgpu;

namespace {

struct Object {
  CUDA_RESOURCE_DESC resource{};
  CUDA_TEXTURE_DESC texture{};
  std::optional<CUDA_RESOURCE_VIEW_DESC> view;
};

struct Objects {
  std::mutex mutex;
  std::map<uint64_t, Object> textures;
  std::map<uint64_t, Object> surfaces;
};

Objects& objects() {
  static auto& all = *new Objects;
  return all;
}

CUresult read_memory(const Context& context, CUdeviceptr address, uint64_t bytes) {
  constexpr unsigned kAlignment = 512;
  const bool there = address % kAlignment == 0 && context.device.space.contains(address, bytes);
  return there ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/// The memory of a resource.
CUresult read_resource(const Context& context, const CUDA_RESOURCE_DESC& from, TextureView* view) {
  std::shared_ptr<Array> array;
  std::shared_ptr<MipmappedArray> levels;
  switch (from.resType) {
    case CU_RESOURCE_TYPE_ARRAY:
      array = arrays().find(from.res.array.hArray);
      break;
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
      levels = mipmapped_arrays().find(from.res.mipmap.hMipmappedArray);
      if (levels) array = arrays().find(levels->levels.front());
      break;
    case CU_RESOURCE_TYPE_LINEAR: {
      const auto& line = from.res.linear;
      set_format(line.format, static_cast<int>(line.numChannels), view);
      if (view->texel_bytes() == 0) return CUDA_ERROR_INVALID_VALUE;
      view->base = line.devPtr;
      view->memory = true;
      view->extent[0] = static_cast<uint32_t>(line.sizeInBytes / view->texel_bytes());
      return read_memory(context, line.devPtr, line.sizeInBytes);
    }
    case CU_RESOURCE_TYPE_PITCH2D: {
      const auto& rows = from.res.pitch2D;
      set_format(rows.format, static_cast<int>(rows.numChannels), view);
      if (view->texel_bytes() == 0 || rows.height == 0 ||
          rows.width * view->texel_bytes() > rows.pitchInBytes) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      view->base = rows.devPtr;
      view->extent = {static_cast<uint32_t>(rows.width), static_cast<uint32_t>(rows.height), 1};
      view->row_bytes = rows.pitchInBytes;
      return read_memory(context, rows.devPtr,
                         (rows.height - 1) * rows.pitchInBytes + rows.width * view->texel_bytes());
    }
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (!array) return CUDA_ERROR_INVALID_HANDLE;
  look_at(*array, view);
  return CUDA_SUCCESS;
}

void read_sampling(const CUDA_TEXTURE_DESC& from, TextureView* view) {
  view->mixes = from.filterMode == CU_TR_FILTER_MODE_LINEAR;
  view->normalized = (from.flags & CU_TRSF_NORMALIZED_COORDINATES) != 0;
  view->integers = (from.flags & CU_TRSF_READ_AS_INTEGER) != 0;
  for (size_t k = 0; k < 3; ++k) view->edges[k] = static_cast<Edge>(from.addressMode[k] & 3);
  for (size_t k = 0; k < 4; ++k) view->border[k] = from.borderColor[k];
}

template <class Out, class Get>
CUresult tell(std::map<uint64_t, Object>& all, uint64_t name, Out* out, Get&& get) {
  return with_context([&](Context&) -> CUresult {
    const std::lock_guard lock(objects().mutex);
    const auto found = all.find(name);
    if (out == nullptr || found == all.end()) return CUDA_ERROR_INVALID_VALUE;
    return get(found->second);
  });
}

CUresult destroy(std::map<uint64_t, Object>& all, uint64_t name) {
  return with_context([&](Context& context) -> CUresult {
    {
      const std::lock_guard lock(objects().mutex);
      if (all.erase(name) == 0) return CUDA_ERROR_INVALID_VALUE;
    }
    context.synchronize();  // kernels may still read through it
    texture_table().remove(name);
    return CUDA_SUCCESS;
  });
}

}  // namespace

extern "C" CUresult cuTexObjectCreate(CUtexObject* out, const CUDA_RESOURCE_DESC* resource,
                                      const CUDA_TEXTURE_DESC* texture,
                                      const CUDA_RESOURCE_VIEW_DESC* view_of) {
  return with_context([&](Context& context) -> CUresult {
    if (out == nullptr || resource == nullptr || texture == nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    auto view = std::make_shared<TextureView>();
    if (CUresult r = read_resource(context, *resource, view.get()); r != CUDA_SUCCESS) return r;
    read_sampling(*texture, view.get());
    Object object{*resource, *texture, {}};
    if (view_of != nullptr) object.view = *view_of;
    *out = texture_table().add(std::move(view));
    const std::lock_guard lock(objects().mutex);
    objects().textures.emplace(*out, object);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexObjectDestroy(CUtexObject object) {
  return destroy(objects().textures, object);
}

extern "C" CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC* out, CUtexObject object) {
  return tell(objects().textures, object, out, [&](const Object& one) {
    *out = one.resource;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC* out, CUtexObject object) {
  return tell(objects().textures, object, out, [&](const Object& one) {
    *out = one.texture;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC* out,
                                                   CUtexObject object) {
  return tell(objects().textures, object, out, [&](const Object& one) {
    if (!one.view) return CUDA_ERROR_INVALID_VALUE;
    *out = *one.view;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuSurfObjectCreate(CUsurfObject* out, const CUDA_RESOURCE_DESC* resource) {
  return with_context([&](Context&) -> CUresult {
    if (out == nullptr || resource == nullptr || resource->resType != CU_RESOURCE_TYPE_ARRAY) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const auto array = arrays().find(resource->res.array.hArray);
    if (!array) return CUDA_ERROR_INVALID_HANDLE;
    if ((array->descriptor.Flags & CUDA_ARRAY3D_SURFACE_LDST) == 0) return CUDA_ERROR_INVALID_VALUE;
    auto view = std::make_shared<TextureView>();
    look_at(*array, view.get());
    *out = texture_table().add(std::move(view));
    const std::lock_guard lock(objects().mutex);
    objects().surfaces.emplace(*out, Object{*resource, {}, {}});
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuSurfObjectDestroy(CUsurfObject object) {
  return destroy(objects().surfaces, object);
}

extern "C" CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC* out, CUsurfObject object) {
  return tell(objects().surfaces, object, out, [&](const Object& one) {
    *out = one.resource;
    return CUDA_SUCCESS;
  });
}
