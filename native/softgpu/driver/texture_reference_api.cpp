// Entry points of texture and surface references.
// SPDX-License-Identifier: Apache-2.0
#include "function.hpp"
#include "guard.hpp"
#include "texture.hpp"

using namespace softgpu;

namespace {

constexpr size_t kAlignment = 512;  // of memory that a texture begins with
constexpr size_t kRowAlignment = 32;
constexpr size_t kMostElements = 1 << 28;

auto& table_of(CUtexref) { return texture_references(); }
auto& table_of(CUsurfref) { return surface_references(); }

template <class Handle, class Call>
CUresult with_reference(Handle handle, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    const auto reference = table_of(handle).find(handle);
    if (!reference) return CUDA_ERROR_INVALID_HANDLE;
    const std::lock_guard lock(reference->mutex);
    return call(*reference);
  });
}

template <class Handle>
CUresult find_in_module(Handle* out, CUmodule handle, const char* name,
                        CUresult (LoadedModule::*find)(std::string_view, Handle*)) {
  return with_driver([&]() -> CUresult {
    const auto module = modules().find(handle);
    if (!module) return CUDA_ERROR_INVALID_HANDLE;
    if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return (*module.*find)(name, out);
  });
}

/// What a getter gives: `value` for a texture reference.
template <class Out, class Get>
CUresult tell(Out* out, CUtexref handle, Get&& get) noexcept {
  return with_reference(handle, [&](TextureReference& reference) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = static_cast<Out>(get(reference));
    return CUDA_SUCCESS;
  });
}

template <class Set>
CUresult change(CUtexref handle, Set&& set) noexcept {
  return with_reference(handle, [&](TextureReference& reference) {
    set(reference);
    return CUDA_SUCCESS;
  });
}

/// What it is bound to where that is a T that is still there.
template <class T>
CUresult tell_bound(const TextureReference& reference, T* out) {
  const T* bound = std::get_if<T>(&reference.bound);
  bool there = false;
  if (bound != nullptr) {
    if constexpr (std::is_same_v<T, CUarray>) {
      there = arrays().find(*bound) != nullptr;
    } else {
      there = mipmapped_arrays().find(*bound) != nullptr;
    }
  }
  if (out == nullptr || !there) return CUDA_ERROR_INVALID_VALUE;
  *out = *bound;
  return CUDA_SUCCESS;
}

size_t element_bytes(CUarray_format format, int channels) {
  TextureView view;
  set_format(format, channels, &view);
  return view.texel_bytes();
}

}  // namespace

extern "C" CUresult cuModuleGetTexRef(CUtexref* out, CUmodule module, const char* name) {
  return find_in_module(out, module, name, &LoadedModule::texture);
}

extern "C" CUresult cuModuleGetSurfRef(CUsurfref* out, CUmodule module, const char* name) {
  return find_in_module(out, module, name, &LoadedModule::surface);
}

extern "C" CUresult cuTexRefCreate(CUtexref* out) {
  return with_context([&](Context&) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = texture_references().insert(std::make_shared<TextureReference>());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexRefDestroy(CUtexref handle) {
  return with_driver([&] {
    return texture_references().erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  });
}

extern "C" CUresult cuParamSetTexRef(CUfunction function, int unit, CUtexref handle) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (!functions().find(function)) return CUDA_ERROR_INVALID_HANDLE;
    // A module's own references are bound by their names.
    return unit == CU_PARAM_TR_DEFAULT && !reference.of_module ? CUDA_SUCCESS
                                                               : CUDA_ERROR_INVALID_VALUE;
  });
}

// ---- what a reference is bound to
// ----------------------------------------------------------------

extern "C" CUresult cuTexRefSetAddress_v2(size_t* offset, CUtexref handle, CUdeviceptr address,
                                          size_t bytes) {
  return with_reference(handle, [&](TextureReference& reference) {
    const size_t before = address % kAlignment;
    const size_t element = std::max<size_t>(element_bytes(reference.format, reference.channels), 1);
    if ((offset == nullptr && before != 0) || bytes / element > kMostElements) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (offset != nullptr) *offset = before;
    reference.bound = BoundMemory{address - before, bytes + before, 0, 0};
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexRefSetAddress2D_v3(CUtexref handle, const CUDA_ARRAY_DESCRIPTOR* rows,
                                            CUdeviceptr address, size_t pitch) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (rows == nullptr || address % kAlignment != 0 || pitch % kRowAlignment != 0 ||
        rows->Height == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    reference.format = rows->Format;
    reference.channels = static_cast<int>(rows->NumChannels);
    reference.bound = BoundMemory{address, rows->Width, rows->Height, pitch};
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefSetAddress2D_v2(CUtexref handle, const CUDA_ARRAY_DESCRIPTOR* rows,
                                            CUdeviceptr address, size_t pitch) {
  return cuTexRefSetAddress2D_v3(handle, rows, address, pitch);
}

extern "C" CUresult cuTexRefSetArray(CUtexref handle, CUarray value, unsigned int flags) {
  return with_reference(handle, [&](TextureReference& reference) {
    const auto array = arrays().find(value);
    if (!array) return CUDA_ERROR_INVALID_HANDLE;
    if ((flags & ~CU_TRSA_OVERRIDE_FORMAT) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (flags != 0) {
      reference.format = array->descriptor.Format;
      reference.channels = static_cast<int>(array->descriptor.NumChannels);
    }
    reference.bound = value;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexRefSetMipmappedArray(CUtexref handle, CUmipmappedArray value,
                                              unsigned int flags) {
  return with_reference(handle, [&](TextureReference& reference) {
    const auto levels = mipmapped_arrays().find(value);
    if (!levels) return CUDA_ERROR_INVALID_HANDLE;
    if ((flags & ~CU_TRSA_OVERRIDE_FORMAT) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (const auto first = arrays().find(levels->levels.front()); first && flags != 0) {
      reference.format = first->descriptor.Format;
      reference.channels = static_cast<int>(first->descriptor.NumChannels);
    }
    reference.bound = value;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuSurfRefSetArray(CUsurfref handle, CUarray value, unsigned int flags) {
  return with_reference(handle, [&](TextureReference& reference) {
    const auto array = arrays().find(value);
    if (!array) return CUDA_ERROR_INVALID_HANDLE;
    if (flags != 0 || (array->descriptor.Flags & CUDA_ARRAY3D_SURFACE_LDST) == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    reference.bound = value;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexRefGetAddress_v2(CUdeviceptr* out, CUtexref handle) {
  if (out != nullptr) *out = 0;
  return with_reference(handle, [&](TextureReference& reference) {
    const auto* memory = std::get_if<BoundMemory>(&reference.bound);
    if (out == nullptr || memory == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = memory->address;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefGetArray(CUarray* out, CUtexref handle) {
  return with_reference(handle, [&](TextureReference& one) { return tell_bound(one, out); });
}
extern "C" CUresult cuTexRefGetMipmappedArray(CUmipmappedArray* out, CUtexref handle) {
  return with_reference(handle, [&](TextureReference& one) { return tell_bound(one, out); });
}
extern "C" CUresult cuSurfRefGetArray(CUarray* out, CUsurfref handle) {
  return with_reference(handle, [&](TextureReference& one) { return tell_bound(one, out); });
}

// ---- how it is read
// ------------------------------------------------------------------------------

extern "C" CUresult cuTexRefSetFormat(CUtexref handle, CUarray_format format, int channels) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (channels == 3 || channels > 4) return CUDA_ERROR_INVALID_VALUE;
    reference.format = format;
    reference.channels = channels;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefSetAddressMode(CUtexref handle, int dimension, CUaddress_mode mode) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (dimension < 0 || dimension > 2) return CUDA_ERROR_INVALID_VALUE;
    reference.edges[static_cast<size_t>(dimension)] = mode;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefSetFilterMode(CUtexref handle, CUfilter_mode mode) {
  return change(handle, [&](TextureReference& one) { one.filter = mode; });
}
extern "C" CUresult cuTexRefSetMipmapFilterMode(CUtexref handle, CUfilter_mode mode) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (mode != CU_TR_FILTER_MODE_POINT && mode != CU_TR_FILTER_MODE_LINEAR) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    reference.level_filter = mode;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefSetMipmapLevelBias(CUtexref handle, float bias) {
  return change(handle, [&](TextureReference& one) { one.level_bias = bias; });
}
extern "C" CUresult cuTexRefSetMipmapLevelClamp(CUtexref handle, float least, float most) {
  return change(handle, [&](TextureReference& one) {
    one.least_level = least;
    one.most_level = most;
  });
}
extern "C" CUresult cuTexRefSetMaxAnisotropy(CUtexref handle, unsigned int most) {
  return change(handle, [&](TextureReference& one) { one.anisotropy = most; });
}
extern "C" CUresult cuTexRefSetBorderColor(CUtexref handle, float* color) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (color == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::copy_n(color, 4, reference.border.begin());
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefSetFlags(CUtexref handle, unsigned int flags) {
  constexpr unsigned kKnown = 0x3f;
  return with_reference(handle, [&](TextureReference& reference) {
    if ((flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
    reference.flags = flags;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexRefGetFormat(CUarray_format* format, int* channels, CUtexref handle) {
  return change(handle, [&](TextureReference& one) {
    if (format != nullptr) *format = one.format;
    if (channels != nullptr) *channels = one.channels;
  });
}
extern "C" CUresult cuTexRefGetAddressMode(CUaddress_mode* out, CUtexref handle, int dimension) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (out == nullptr || dimension < 0 || dimension > 2) return CUDA_ERROR_INVALID_VALUE;
    *out = reference.edges[static_cast<size_t>(dimension)];
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefGetFilterMode(CUfilter_mode* out, CUtexref handle) {
  return tell(out, handle, [](const TextureReference& one) { return one.filter; });
}
extern "C" CUresult cuTexRefGetMipmapFilterMode(CUfilter_mode* out, CUtexref handle) {
  return tell(out, handle, [](const TextureReference& one) { return one.level_filter; });
}
extern "C" CUresult cuTexRefGetMipmapLevelBias(float* out, CUtexref handle) {
  return tell(out, handle, [](const TextureReference& one) { return one.level_bias; });
}
extern "C" CUresult cuTexRefGetMipmapLevelClamp(float* least, float* most, CUtexref handle) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (least == nullptr || most == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *least = reference.least_level;
    *most = reference.most_level;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefGetMaxAnisotropy(int* out, CUtexref handle) {
  return tell(out, handle, [](const TextureReference& one) { return one.anisotropy; });
}
extern "C" CUresult cuTexRefGetBorderColor(float* out, CUtexref handle) {
  return with_reference(handle, [&](TextureReference& reference) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::copy_n(reference.border.begin(), 4, out);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuTexRefGetFlags(unsigned int* out, CUtexref handle) {
  return tell(out, handle, [](const TextureReference& one) { return one.flags; });
}
