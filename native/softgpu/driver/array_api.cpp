// Entry points of arrays and mipmapped arrays.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "array.hpp"
#include "guard.hpp"
#include "memory_map.hpp"

namespace softgpu {

HandleTable<Array, CUarray, 20>& arrays() {
  static auto& table = *new HandleTable<Array, CUarray, 20>;
  return table;
}

HandleTable<MipmappedArray, CUmipmappedArray, 21>& mipmapped_arrays() {
  static auto& table = *new HandleTable<MipmappedArray, CUmipmappedArray, 21>;
  return table;
}

void forget_arrays(const Context& context) {
  const auto inside = [&](const auto& object) { return object.context_id == context.id; };
  arrays().erase_if(inside);
  mipmapped_arrays().erase_if(inside);
}

}  // namespace softgpu

using namespace softgpu;

namespace {

constexpr unsigned kMapped = CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING;
constexpr unsigned kFlags = CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_SURFACE_LDST |
                            CUDA_ARRAY3D_CUBEMAP | CUDA_ARRAY3D_TEXTURE_GATHER |
                            CUDA_ARRAY3D_COLOR_ATTACHMENT | kMapped;

size_t channel_bytes(CUarray_format format) {
  switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
      return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      return 4;
    default:
      return 0;
  }
}

CUresult check(const CUDA_ARRAY3D_DESCRIPTOR& d) {
  constexpr size_t kWidest = 1 << 17;
  constexpr size_t kMost = 1 << 16;
  bool channels = d.NumChannels == 1 || d.NumChannels == 2 || d.NumChannels == 4;
  if (channel_bytes(d.Format) == 0 || (d.Flags & ~kFlags) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if (!channels || d.Width == 0 || d.Width > kWidest || d.Height > kMost || d.Depth > kMost) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  bool cube = (d.Flags & CUDA_ARRAY3D_CUBEMAP) != 0;
  bool layered = (d.Flags & CUDA_ARRAY3D_LAYERED) != 0;
  if (cube && (d.Width != d.Height || d.Depth % 6 != 0 || (!layered && d.Depth != 6))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (layered ? d.Depth == 0 : d.Depth != 0 && d.Height == 0) return CUDA_ERROR_INVALID_VALUE;
  // As driver 580: planes and volumes alone, and no surface is written to them.
  const bool sparse = (d.Flags & CUDA_ARRAY3D_SPARSE) != 0;
  constexpr unsigned kNotSparse =
      CUDA_ARRAY3D_CUBEMAP | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_DEFERRED_MAPPING;
  if (sparse && (d.Height == 0 || (d.Flags & kNotSparse) != 0)) return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

size_t element_bytes(const CUDA_ARRAY3D_DESCRIPTOR& descriptor) {
  return channel_bytes(descriptor.Format) * descriptor.NumChannels;
}

/// `tiling`: of the mipmapped array that it is the level `number` of, if the program maps that.
CUresult create(Context& context, const CUDA_ARRAY3D_DESCRIPTOR& descriptor, bool level,
                const Tiling* tiling, unsigned number, CUarray* out) {
  if (CUresult r = check(descriptor); r != CUDA_SUCCESS) return r;
  auto array = std::make_shared<Array>();
  array->descriptor = descriptor;
  array->device = &context.device;
  array->context_id = context.id;
  array->element_bytes = element_bytes(descriptor);
  array->level = level;
  if (!level && (descriptor.Flags & kMapped) != 0) {
    array->tiling = std::make_shared<Tiling>(descriptor, array->element_bytes, 1);
    tiling = array->tiling.get();
  }
  if (tiling != nullptr) {
    array->tiles = tiling->level(number);
    *out = arrays().insert(std::move(array));
    return CUDA_SUCCESS;
  }
  array->base = context.device.heap.allocate(array->bytes());
  if (array->base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  Allocation a;
  a.base = array->base;
  a.size = array->bytes();
  a.kind = MemoryKind::array;
  a.device = &context.device;
  a.context = context.handle;
  a.context_id = context.id;
  MemoryMap::get().insert(std::move(a));
  *out = arrays().insert(std::move(array));
  return CUDA_SUCCESS;
}

// Its memory may have gone with its context, and be another's by now.
void release(const Array& array) {
  if (array.tiles) return;
  auto found = MemoryMap::get().find(array.base);
  if (!found || found->kind != MemoryKind::array || found->context_id != array.context_id) return;
  if (auto a = MemoryMap::get().erase(array.base, MemoryKind::array)) MemoryMap::release(*a);
}

template <class Descriptor>
CUresult describe(const Array& array, Descriptor* out) {
  out->Width = array.descriptor.Width;
  out->Height = array.descriptor.Height;
  out->Format = array.descriptor.Format;
  out->NumChannels = array.descriptor.NumChannels;
  return CUDA_SUCCESS;
}

template <class Out, class Call>
CUresult with_array(CUarray handle, Out* out, Call&& call) noexcept {
  return with_context([&](Context&) -> CUresult {
    std::shared_ptr<Array> array = arrays().find(handle);
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return array ? call(*array) : CUDA_ERROR_INVALID_HANDLE;
  });
}

/// Of deferred mapping alone: other arrays have their memory, or take it tile by tile.
CUresult requirements(const Tiling* tiling, CUDA_ARRAY_MEMORY_REQUIREMENTS* out) {
  if (tiling == nullptr || !tiling->deferred()) return CUDA_ERROR_INVALID_VALUE;
  *out = {};
  out->size = tiling->bytes();
  out->alignment = kTileBytes;
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuArray3DCreate_v2(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR* descriptor) {
  return with_context_uncaptured([&](Context& context) {
    if (out == nullptr || descriptor == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return create(context, *descriptor, false, nullptr, 0, out);
  });
}

extern "C" CUresult cuArrayCreate_v2(CUarray* out, const CUDA_ARRAY_DESCRIPTOR* descriptor) {
  if (descriptor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_ARRAY3D_DESCRIPTOR wide{};
  wide.Width = descriptor->Width;
  wide.Height = descriptor->Height;
  wide.Format = descriptor->Format;
  wide.NumChannels = descriptor->NumChannels;
  return cuArray3DCreate_v2(out, &wide);
}

extern "C" CUresult cuArrayDestroy(CUarray handle) {
  return with_context_uncaptured([&](Context& context) {
    std::shared_ptr<Array> array = arrays().find(handle);
    if (!array || array->level) return CUDA_ERROR_INVALID_HANDLE;
    context.synchronize();
    arrays().erase(handle);
    release(*array);
    return context.fault();
  });
}

extern "C" CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR* out, CUarray handle) {
  return with_array(handle, out, [&](const Array& array) {
    *out = array.descriptor;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR* out, CUarray handle) {
  return with_array(handle, out, [&](const Array& array) { return describe(array, out); });
}
extern "C" CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS* out,
                                                 CUarray handle, CUdevice) {
  return with_array(handle, out,
                    [&](const Array& array) { return requirements(array.tiling.get(), out); });
}
extern "C" CUresult cuArrayGetPlane(CUarray* out, CUarray handle, unsigned int) {
  // Formats of several planes are refused when an array is made.
  return with_array(handle, out, [](const Array&) { return CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuMipmappedArrayCreate(CUmipmappedArray* out,
                                           const CUDA_ARRAY3D_DESCRIPTOR* descriptor,
                                           unsigned int levels) {
  return with_context_uncaptured([&](Context& context) {
    if (out == nullptr || descriptor == nullptr || levels == 0) return CUDA_ERROR_INVALID_VALUE;
    auto mipmap = std::make_shared<MipmappedArray>();
    mipmap->context_id = context.id;
    CUDA_ARRAY3D_DESCRIPTOR level = *descriptor;
    bool layered = (level.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
    size_t longest = std::max({level.Width, level.Height, layered ? 0 : level.Depth});
    // As CUDA: no more levels than halvings down to one.
    levels = std::min(levels, static_cast<unsigned>(std::bit_width(longest)));
    if (CUresult r = check(level); r != CUDA_SUCCESS) return r;
    if ((level.Flags & kMapped) != 0) {
      mipmap->tiling = std::make_shared<Tiling>(level, element_bytes(level), levels);
    }
    for (unsigned i = 0; i < levels; ++i) {
      CUarray array = nullptr;
      CUresult r = create(context, level, true, mipmap->tiling.get(), i, &array);
      if (r != CUDA_SUCCESS) {
        for (CUarray made : mipmap->levels) release(*arrays().erase(made));
        return r;
      }
      mipmap->levels.push_back(array);
      level.Width = std::max<size_t>(level.Width / 2, 1);
      if (level.Height != 0) level.Height = std::max<size_t>(level.Height / 2, 1);
      if (level.Depth != 0 && !layered) level.Depth = std::max<size_t>(level.Depth / 2, 1);
    }
    *out = mipmapped_arrays().insert(std::move(mipmap));
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMipmappedArrayDestroy(CUmipmappedArray handle) {
  return with_context_uncaptured([&](Context& context) {
    std::shared_ptr<MipmappedArray> mipmap = mipmapped_arrays().erase(handle);
    if (!mipmap) return CUDA_ERROR_INVALID_HANDLE;
    context.synchronize();
    for (CUarray level : mipmap->levels) {
      if (auto array = arrays().erase(level)) release(*array);
    }
    return context.fault();
  });
}

extern "C" CUresult cuMipmappedArrayGetLevel(CUarray* out, CUmipmappedArray handle,
                                             unsigned int level) {
  return with_context([&](Context&) {
    std::shared_ptr<MipmappedArray> mipmap = mipmapped_arrays().find(handle);
    if (!mipmap) return CUDA_ERROR_INVALID_HANDLE;
    if (out == nullptr || level >= mipmap->levels.size()) return CUDA_ERROR_INVALID_VALUE;
    *out = mipmap->levels[level];
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS* out,
                                                          CUmipmappedArray handle, CUdevice) {
  return with_context([&](Context&) {
    std::shared_ptr<MipmappedArray> mipmap = mipmapped_arrays().find(handle);
    if (!mipmap) return CUDA_ERROR_INVALID_HANDLE;
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return requirements(mipmap->tiling.get(), out);
  });
}
