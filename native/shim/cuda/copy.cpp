// The linear copy functions, one by one and in batches.
// SPDX-License-Identifier: Apache-2.0
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/peers.hpp"
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
  return between_peers(dstContext, srcContext,
                       [&] { return shim::cuMemcpyDtoD_v2(dstDevice, srcDevice, ByteCount); });
}

CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                           CUcontext srcContext, size_t ByteCount, CUstream hStream) {
  if (find(dstContext) == nullptr || find(srcContext) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return shim::cuMemcpyDtoDAsync_v2(dstDevice, srcDevice, ByteCount, hStream);
}

// Copies of a batch may be done in any order; theirs is one that is allowed.
CUresult cuMemcpyBatchAsync(CUdeviceptr* dsts, CUdeviceptr* srcs, size_t* sizes, size_t count,
                            CUmemcpyAttributes* attrs, size_t* attrsIdxs, size_t numAttrs,
                            size_t* failIdx, CUstream hStream) {
  Stream* stream = nullptr;
  if (failIdx != nullptr) *failIdx = SIZE_MAX;
  if (const CUresult result = enter_stream(hStream, &stream); result != CUDA_SUCCESS) return result;
  const bool described = numAttrs != 0 && attrs != nullptr && attrsIdxs != nullptr &&
                         attrsIdxs[0] == 0 && numAttrs <= count;
  if (dsts == nullptr || srcs == nullptr || sizes == nullptr || count == 0 || !described ||
      stream->legacy) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) {
    const CUresult result = copy_any(stream, dsts[i], srcs[i], sizes[i], When::queued);
    if (result == CUDA_SUCCESS) continue;
    if (failIdx != nullptr) *failIdx = i;
    return result;
  }
  return CUDA_SUCCESS;
}

CUresult cuMemcpyBatchAsync_v2(CUdeviceptr* dsts, CUdeviceptr* srcs, size_t* sizes, size_t count,
                               CUmemcpyAttributes* attrs, size_t* attrsIdxs, size_t numAttrs,
                               CUstream hStream) {
  return shim::cuMemcpyBatchAsync(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, nullptr,
                                  hStream);
}

}  // namespace outboard::shim
