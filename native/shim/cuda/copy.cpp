// The copy functions, linear and two-dimensional.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <memory>

#include "base/log.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/transfer.hpp"

namespace outboard::shim {
namespace {

// A plain copy runs on the default stream.
CUresult enter_default(Stream** stream) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  *stream = default_stream(context);
  return *stream != nullptr ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult enter_stream(CUstream value, Stream** stream) {
  Context* context = nullptr;
  return enter(value, &context, stream);
}

// One side of a two-dimensional copy.
struct Plane {
  bool device = false;
  uint64_t base = 0;  // of the first byte copied
  size_t pitch = 0;
};

CUresult read_plane(CUmemorytype type, const void* host, CUdeviceptr device, size_t pitch, size_t x,
                    size_t y, size_t width, Plane* plane) {
  plane->pitch = pitch != 0 ? pitch : width;
  Range range;
  switch (type) {
    case CU_MEMORYTYPE_HOST:
      plane->base = reinterpret_cast<uint64_t>(host);
      break;
    case CU_MEMORYTYPE_DEVICE:
      plane->base = device;
      plane->device = true;
      break;
    case CU_MEMORYTYPE_UNIFIED:
      plane->base = device;
      plane->device = addresses().find(device, &range) && range.on_device();
      break;
    case CU_MEMORYTYPE_ARRAY:
      return CUDA_ERROR_NOT_SUPPORTED;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (plane->pitch < width || plane->base == 0) return CUDA_ERROR_INVALID_VALUE;
  plane->base += y * plane->pitch + x;
  return CUDA_SUCCESS;
}

CUresult rows_to_device(Stream* stream, const Plane& to, const Plane& from, size_t width,
                        size_t height, When when) {
  if (to.pitch != width) {
    for (size_t row = 0; row < height; ++row) {
      const CUresult result =
          copy_to_device(stream, to.base + row * to.pitch,
                         reinterpret_cast<const void*>(from.base + row * from.pitch), width, when);
      if (result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
  }
  // Dense on the device: gathered here, one copy.
  const std::unique_ptr<std::byte[]> dense(new std::byte[width * height]);
  for (size_t row = 0; row < height; ++row) {
    std::memcpy(dense.get() + row * width,
                reinterpret_cast<const void*>(from.base + row * from.pitch), width);
  }
  return copy_to_device(stream, to.base, dense.get(), width * height, When::done);
}

// One trip: everything from the first byte to the last, then the rows are picked out.
CUresult rows_to_host(Stream* stream, const Plane& to, const Plane& from, size_t width,
                      size_t height) {
  const size_t span = (height - 1) * from.pitch + width;
  const std::unique_ptr<std::byte[]> all(new std::byte[span]);
  const CUresult result = copy_to_host(stream, all.get(), from.base, span, When::done);
  if (result != CUDA_SUCCESS) return result;
  for (size_t row = 0; row < height; ++row) {
    std::memcpy(reinterpret_cast<void*>(to.base + row * to.pitch), all.get() + row * from.pitch,
                width);
  }
  return CUDA_SUCCESS;
}

CUresult rows_on_device(Stream* stream, const Plane& to, const Plane& from, size_t width,
                        size_t height) {
  Range target, source;
  if (!addresses().is_device(to.base, (height - 1) * to.pitch + width, &target) ||
      !addresses().is_device(from.base, (height - 1) * from.pitch + width, &source)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send(stream, wire::command::CopyOnDevice2D{.stream = stream->head.id(),
                                                    .destination = to.base,
                                                    .destination_pitch = to.pitch,
                                                    .source = from.base,
                                                    .source_pitch = from.pitch,
                                                    .width_bytes = width,
                                                    .height = height});
}

CUresult copy_2d(Stream* stream, const CUDA_MEMCPY2D* copy, When when) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const size_t width = copy->WidthInBytes, height = copy->Height;
  Plane to, from;
  CUresult result = read_plane(copy->srcMemoryType, copy->srcHost, copy->srcDevice, copy->srcPitch,
                               copy->srcXInBytes, copy->srcY, width, &from);
  if (result == CUDA_SUCCESS) {
    result = read_plane(copy->dstMemoryType, copy->dstHost, copy->dstDevice, copy->dstPitch,
                        copy->dstXInBytes, copy->dstY, width, &to);
  }
  if (result != CUDA_SUCCESS || width == 0 || height == 0) return result;
  if (to.pitch == width && from.pitch == width) {
    return copy_any(stream, to.base, from.base, width * height, when);
  }
  if (to.device && from.device) return rows_on_device(stream, to, from, width, height);
  if (to.device) return rows_to_device(stream, to, from, width, height, when);
  if (from.device) return rows_to_host(stream, to, from, width, height);
  for (size_t row = 0; row < height; ++row) {
    result = copy_any(stream, to.base + row * to.pitch, from.base + row * from.pitch, width, when);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_any(stream, dst, src, ByteCount, When::done) : result;
}

CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS ? copy_any(stream, dst, src, ByteCount, When::queued) : result;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr dstDevice, const void* srcHost, size_t ByteCount) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_to_device(stream, dstDevice, srcHost, ByteCount, When::done)
                                : result;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void* srcHost, size_t ByteCount,
                              CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS
             ? copy_to_device(stream, dstDevice, srcHost, ByteCount, When::queued)
             : result;
}

CUresult cuMemcpyDtoH_v2(void* dstHost, CUdeviceptr srcDevice, size_t ByteCount) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_to_host(stream, dstHost, srcDevice, ByteCount, When::done)
                                : result;
}

CUresult cuMemcpyDtoHAsync_v2(void* dstHost, CUdeviceptr srcDevice, size_t ByteCount,
                              CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS ? copy_to_host(stream, dstHost, srcDevice, ByteCount, When::queued)
                                : result;
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_on_device(stream, dstDevice, srcDevice, ByteCount) : result;
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount,
                              CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS ? copy_on_device(stream, dstDevice, srcDevice, ByteCount) : result;
}

CUresult cuMemcpyPeer(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                      CUcontext srcContext, size_t ByteCount) {
  if (find(dstContext) == nullptr || find(srcContext) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return shim::cuMemcpyDtoD_v2(dstDevice, srcDevice, ByteCount);
}

CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                           CUcontext srcContext, size_t ByteCount, CUstream hStream) {
  if (find(dstContext) == nullptr || find(srcContext) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return shim::cuMemcpyDtoDAsync_v2(dstDevice, srcDevice, ByteCount, hStream);
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* pCopy) {
  Stream* stream = nullptr;
  const CUresult result = enter_default(&stream);
  return result == CUDA_SUCCESS ? copy_2d(stream, pCopy, When::done) : result;
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* pCopy) { return shim::cuMemcpy2D_v2(pCopy); }

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* pCopy, CUstream hStream) {
  Stream* stream = nullptr;
  const CUresult result = enter_stream(hStream, &stream);
  return result == CUDA_SUCCESS ? copy_2d(stream, pCopy, When::queued) : result;
}

}  // namespace outboard::shim
