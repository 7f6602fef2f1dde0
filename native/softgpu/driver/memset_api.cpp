// Entry points that set memory.
// SPDX-License-Identifier: Apache-2.0
#include "copies.hpp"
#include "guard.hpp"
#include "submit.hpp"

using namespace softgpu;

namespace {

CUresult set(CUdeviceptr to, size_t pitch, unsigned value, unsigned element, size_t width,
             size_t height, CUstream stream, bool async) {
  return with_context([&](Context& context) {
    if (!async) {
      if (CUresult r = refuse_in_capture(); r != CUDA_SUCCESS) return r;
    }
    MemsetOperation op;
    CUresult r = memset_operation(to, pitch, value, element, width, height, &op);
    return r != CUDA_SUCCESS ? r : submit(context, stream, op);
  });
}

}  // namespace

extern "C" {

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t n) {
  return set(to, 0, value, 1, n, 1, nullptr, false);
}
CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t n) {
  return set(to, 0, value, 2, n, 1, nullptr, false);
}
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t n) {
  return set(to, 0, value, 4, n, 1, nullptr, false);
}
CUresult cuMemsetD2D8_v2(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                         size_t height) {
  return set(to, pitch, value, 1, width, height, nullptr, false);
}
CUresult cuMemsetD2D16_v2(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                          size_t height) {
  return set(to, pitch, value, 2, width, height, nullptr, false);
}
CUresult cuMemsetD2D32_v2(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                          size_t height) {
  return set(to, pitch, value, 4, width, height, nullptr, false);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream) {
  return set(to, 0, value, 1, n, 1, stream, true);
}
CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t n, CUstream stream) {
  return set(to, 0, value, 2, n, 1, stream, true);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t n, CUstream stream) {
  return set(to, 0, value, 4, n, 1, stream, true);
}
CUresult cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                           size_t height, CUstream stream) {
  return set(to, pitch, value, 1, width, height, stream, true);
}
CUresult cuMemsetD2D16Async(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                            size_t height, CUstream stream) {
  return set(to, pitch, value, 2, width, height, stream, true);
}
CUresult cuMemsetD2D32Async(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                            size_t height, CUstream stream) {
  return set(to, pitch, value, 4, width, height, stream, true);
}

}  // extern "C"
