// Entry points that copy memory.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "capture.hpp"
#include "copies.hpp"
#include "guard.hpp"
#include "printf_text.hpp"
#include "submit.hpp"

using namespace softgpu;

namespace {

/// A copy that returns when it is done, as the plain forms do. (CUDA lets device-to-device ones
/// return early.)
CUresult copy_now(Context& context, CopyOperation copy) {
  if (CUresult r = refuse_in_capture(); r != CUDA_SUCCESS) return r;
  bool reaches_host = copy.destination_device == nullptr || copy.source_device == nullptr;
  if (!reaches_host) return submit(context, nullptr, std::move(copy));
  CUresult r = submit_and_wait(context, nullptr, std::move(copy));
  PrintfText::flush();
  return r;
}

/// Takes the bytes of a pageable source out of the program's memory, which it may reuse as soon as
/// the call returns.
void take_snapshot(CopyOperation* copy) {
  auto bytes = std::make_shared<std::vector<std::byte>>(copy->bytes());
  std::byte* to = bytes->data();
  for (size_t z = 0; z < copy->depth; ++z) {
    for (size_t y = 0; y < copy->height; ++y, to += copy->width) {
      std::memcpy(to,
                  reinterpret_cast<const void*>(copy->source + z * copy->source_slice +
                                                y * copy->source_pitch),
                  copy->width);
    }
  }
  copy->source = reinterpret_cast<uint64_t>(bytes->data());
  copy->source_pitch = copy->width;
  copy->source_slice = copy->width * copy->height;
  copy->snapshot = std::move(bytes);
}

CUresult copy_later(Context& context, CUstream handle, CopyOperation copy) {
  std::shared_ptr<Stream> stream;
  if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
  // In a capture nothing is copied yet: each replay reads the source anew.
  if (stream->capturing.load() || copy.bytes() == 0) {
    return submit(context, handle, std::move(copy));
  }
  bool to_pageable = copy.destination_device == nullptr && pageable(copy.destination);
  bool from_pageable = copy.source_device == nullptr && pageable(copy.source);
  // As CUDA: a copy into pageable memory is complete when the call returns.
  if (to_pageable) return submit_and_wait(context, handle, std::move(copy));
  if (from_pageable) take_snapshot(&copy);
  return submit(context, handle, std::move(copy));
}

CUresult linear(CUdeviceptr destination, Place to, CUdeviceptr source, Place from, size_t bytes) {
  return with_context([&](Context& context) {
    CopyOperation copy;
    CUresult r = linear_copy(destination, to, source, from, bytes, &copy);
    return r != CUDA_SUCCESS ? r : copy_now(context, std::move(copy));
  });
}

CUresult linear_async(CUdeviceptr destination, Place to, CUdeviceptr source, Place from,
                      size_t bytes, CUstream stream) {
  return with_context([&](Context& context) {
    CopyOperation copy;
    CUresult r = linear_copy(destination, to, source, from, bytes, &copy);
    return r != CUDA_SUCCESS ? r : copy_later(context, stream, std::move(copy));
  });
}

CUdeviceptr number(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

CUDA_MEMCPY3D widen(const CUDA_MEMCPY2D& d) {
  CUDA_MEMCPY3D w{};
  w.srcXInBytes = d.srcXInBytes;
  w.srcY = d.srcY;
  w.srcMemoryType = d.srcMemoryType;
  w.srcHost = d.srcHost;
  w.srcDevice = d.srcDevice;
  w.srcArray = d.srcArray;
  w.srcPitch = d.srcPitch;
  w.dstXInBytes = d.dstXInBytes;
  w.dstY = d.dstY;
  w.dstMemoryType = d.dstMemoryType;
  w.dstHost = d.dstHost;
  w.dstDevice = d.dstDevice;
  w.dstArray = d.dstArray;
  w.dstPitch = d.dstPitch;
  w.WidthInBytes = d.WidthInBytes;
  w.Height = d.Height;
  w.Depth = 1;
  return w;
}

CUDA_MEMCPY3D without_peers(const CUDA_MEMCPY3D_PEER& d) {
  CUDA_MEMCPY3D w{};
  w.srcXInBytes = d.srcXInBytes;
  w.srcY = d.srcY;
  w.srcZ = d.srcZ;
  w.srcMemoryType = d.srcMemoryType;
  w.srcHost = d.srcHost;
  w.srcDevice = d.srcDevice;
  w.srcArray = d.srcArray;
  w.srcPitch = d.srcPitch;
  w.srcHeight = d.srcHeight;
  w.dstXInBytes = d.dstXInBytes;
  w.dstY = d.dstY;
  w.dstZ = d.dstZ;
  w.dstMemoryType = d.dstMemoryType;
  w.dstHost = d.dstHost;
  w.dstDevice = d.dstDevice;
  w.dstArray = d.dstArray;
  w.dstPitch = d.dstPitch;
  w.dstHeight = d.dstHeight;
  w.WidthInBytes = d.WidthInBytes;
  w.Height = d.Height;
  w.Depth = d.Depth;
  return w;
}

CUresult shaped(const CUDA_MEMCPY3D& description) {
  return with_context([&](Context& context) {
    CopyOperation copy;
    CUresult r = copy_3d(description, &copy);
    return r != CUDA_SUCCESS ? r : copy_now(context, std::move(copy));
  });
}

CUresult shaped_async(const CUDA_MEMCPY3D& description, CUstream stream) {
  return with_context([&](Context& context) {
    CopyOperation copy;
    CUresult r = copy_3d(description, &copy);
    return r != CUDA_SUCCESS ? r : copy_later(context, stream, std::move(copy));
  });
}

/// A copy in the order of all work of both contexts, and of the current one's.
template <class Copy>
CUresult between_peers(CUcontext to, CUcontext from, Copy&& copy) {
  CUcontext current = nullptr;
  cuCtxGetCurrent(&current);
  bool others = false;
  for (CUcontext handle : {to, from}) {
    if (handle == current) continue;
    if (auto context = find_context(handle)) {
      context->synchronize();
      others = true;
    }
  }
  CUresult r = copy();
  if (r != CUDA_SUCCESS || !others) return r;
  return cuCtxSynchronize();
}

}  // namespace

extern "C" CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return linear(to, Place::device, number(from), Place::host, bytes);
}
extern "C" CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return linear(number(to), Place::host, from, Place::device, bytes);
}
extern "C" CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return linear(to, Place::device, from, Place::device, bytes);
}
extern "C" CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return linear(to, Place::any, from, Place::any, bytes);
}
extern "C" CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                                 CUcontext from_context, size_t bytes) {
  return between_peers(to_context, from_context,
                       [&] { return linear(to, Place::device, from, Place::device, bytes); });
}

extern "C" CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes,
                                         CUstream stream) {
  return linear_async(to, Place::device, number(from), Place::host, bytes, stream);
}
extern "C" CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes,
                                         CUstream stream) {
  return linear_async(number(to), Place::host, from, Place::device, bytes, stream);
}
extern "C" CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                         CUstream stream) {
  return linear_async(to, Place::device, from, Place::device, bytes, stream);
}
extern "C" CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return linear_async(to, Place::any, from, Place::any, bytes, stream);
}
extern "C" CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext,
                                      size_t bytes, CUstream stream) {
  return linear_async(to, Place::device, from, Place::device, bytes, stream);
}

extern "C" CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* copy) {
  return copy ? shaped(widen(*copy)) : CUDA_ERROR_INVALID_VALUE;
}
extern "C" CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* copy) {
  return cuMemcpy2D_v2(copy);
}
extern "C" CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* copy, CUstream stream) {
  return copy ? shaped_async(widen(*copy), stream) : CUDA_ERROR_INVALID_VALUE;
}
extern "C" CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D* copy) {
  return copy ? shaped(*copy) : CUDA_ERROR_INVALID_VALUE;
}
extern "C" CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* copy, CUstream stream) {
  return copy ? shaped_async(*copy, stream) : CUDA_ERROR_INVALID_VALUE;
}
extern "C" CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER* copy) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return between_peers(copy->dstContext, copy->srcContext,
                       [&] { return shaped(without_peers(*copy)); });
}
extern "C" CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER* copy, CUstream stream) {
  return copy ? shaped_async(without_peers(*copy), stream) : CUDA_ERROR_INVALID_VALUE;
}

extern "C" CUresult cuMemcpyBatchAsync_v2(CUdeviceptr* to, CUdeviceptr* from, size_t* bytes,
                                          size_t count, CUmemcpyAttributes*, size_t*, size_t,
                                          CUstream stream) {
  if (to == nullptr || from == nullptr || bytes == nullptr || count == 0 || stream == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) {
    CUresult r = linear_async(to[i], Place::any, from[i], Place::any, bytes[i], stream);
    if (r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}
extern "C" CUresult cuMemcpyBatchAsync(CUdeviceptr* to, CUdeviceptr* from, size_t* bytes,
                                       size_t count, CUmemcpyAttributes*, size_t*, size_t,
                                       size_t* failed, CUstream stream) {
  if (failed != nullptr) *failed = SIZE_MAX;
  return cuMemcpyBatchAsync_v2(to, from, bytes, count, nullptr, nullptr, 0, stream);
}
