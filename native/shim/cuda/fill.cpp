// Setting device memory, in one row or several.
// SPDX-License-Identifier: Apache-2.0
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

struct Area {
  CUdeviceptr base;
  size_t pitch;
  size_t width;  // elements
  size_t height;
};

// `plain`: without a stream, which is queued, too, but done at the return where host memory is set.
CUresult fill_on(Stream* stream, Area area, uint32_t value, uint32_t element_bytes, bool plain) {
  if (area.width == 0 || area.height == 0) return CUDA_SUCCESS;
  if (area.width > SIZE_MAX / element_bytes) return CUDA_ERROR_INVALID_VALUE;
  const size_t row = area.width * element_bytes;
  if (area.base % element_bytes != 0 || area.pitch % element_bytes != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  size_t span = row;
  if (area.height > 1) {
    if (area.pitch < row || area.height - 1 > (SIZE_MAX - row) / area.pitch) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    span += (area.height - 1) * area.pitch;
  }
  Range range;
  Reach reach(stream);
  const bool on_host = !addresses().is_device(area.base, span, &range);
  if (on_host && !addresses().is_pinned(reinterpret_cast<const void*>(area.base), span)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  bool away = false;
  if (!on_host) {
    const CUresult result = stream_for(range, &stream, &away);
    if (result != CUDA_SUCCESS) return result;
  }
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  if (on_host) {
    // Registered memory may be named as the program knows it.
    uint64_t base = area.base;
    if (range.kind == MemoryKind::registered) base = alias_of(base);
    if (base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    if (const CUresult result = reach.add_host(base); result != CUDA_SUCCESS) return result;
    area.base = base;
  }
  CUresult result = send(stream, wire::command::Fill{.stream = stream->head.id(),
                                                     .destination = area.base,
                                                     .pitch = area.height > 1 ? area.pitch : 0,
                                                     .value = value,
                                                     .element_bytes = element_bytes,
                                                     .width = area.width,
                                                     .height = area.height});
  reach.sent();
  const bool wait = away || (on_host && plain);
  if (result == CUDA_SUCCESS && wait) result = wait_all(stream);
  return result == CUDA_SUCCESS && wait ? fetch_views() : result;
}

CUresult fill(Area area, uint32_t value, uint32_t element_bytes) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Stream* stream = default_stream(context);
  if (stream == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  return fill_on(stream, area, value, element_bytes, true);
}

CUresult fill(Area area, uint32_t value, uint32_t element_bytes, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS) {
    return result;
  }
  return fill_on(stream, area, value, element_bytes, false);
}

}  // namespace

CUresult cuMemsetD8_v2(CUdeviceptr dstDevice, unsigned char uc, size_t N) {
  return fill({dstDevice, 0, N, 1}, uc, 1);
}
CUresult cuMemsetD16_v2(CUdeviceptr dstDevice, unsigned short us, size_t N) {
  return fill({dstDevice, 0, N, 1}, us, 2);
}
CUresult cuMemsetD32_v2(CUdeviceptr dstDevice, unsigned int ui, size_t N) {
  return fill({dstDevice, 0, N, 1}, ui, 4);
}
CUresult cuMemsetD8Async(CUdeviceptr dstDevice, unsigned char uc, size_t N, CUstream hStream) {
  return fill({dstDevice, 0, N, 1}, uc, 1, hStream);
}
CUresult cuMemsetD16Async(CUdeviceptr dstDevice, unsigned short us, size_t N, CUstream hStream) {
  return fill({dstDevice, 0, N, 1}, us, 2, hStream);
}
CUresult cuMemsetD32Async(CUdeviceptr dstDevice, unsigned int ui, size_t N, CUstream hStream) {
  return fill({dstDevice, 0, N, 1}, ui, 4, hStream);
}
CUresult cuMemsetD2D8_v2(CUdeviceptr dstDevice, size_t dstPitch, unsigned char uc, size_t Width,
                         size_t Height) {
  return fill({dstDevice, dstPitch, Width, Height}, uc, 1);
}
CUresult cuMemsetD2D16_v2(CUdeviceptr dstDevice, size_t dstPitch, unsigned short us, size_t Width,
                          size_t Height) {
  return fill({dstDevice, dstPitch, Width, Height}, us, 2);
}
CUresult cuMemsetD2D32_v2(CUdeviceptr dstDevice, size_t dstPitch, unsigned int ui, size_t Width,
                          size_t Height) {
  return fill({dstDevice, dstPitch, Width, Height}, ui, 4);
}
CUresult cuMemsetD2D8Async(CUdeviceptr dstDevice, size_t dstPitch, unsigned char uc, size_t Width,
                           size_t Height, CUstream hStream) {
  return fill({dstDevice, dstPitch, Width, Height}, uc, 1, hStream);
}
CUresult cuMemsetD2D16Async(CUdeviceptr dstDevice, size_t dstPitch, unsigned short us, size_t Width,
                            size_t Height, CUstream hStream) {
  return fill({dstDevice, dstPitch, Width, Height}, us, 2, hStream);
}
CUresult cuMemsetD2D32Async(CUdeviceptr dstDevice, size_t dstPitch, unsigned int ui, size_t Width,
                            size_t Height, CUstream hStream) {
  return fill({dstDevice, dstPitch, Width, Height}, ui, 4, hStream);
}

}  // namespace outboard::shim
