// Bringing values into arrays and out of them, whole.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "driver.hpp"

inline CUDA_MEMCPY3D copy_of(size_t width, size_t height, size_t depth) {
  CUDA_MEMCPY3D copy{};
  copy.WidthInBytes = width * sizeof(float);
  copy.Height = height;
  copy.Depth = depth;
  return copy;
}

inline void fill(CUarray array, const std::vector<float>& values, size_t width, size_t height,
                 size_t depth = 1) {
  CUDA_MEMCPY3D copy = copy_of(width, height, depth);
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = values.data();
  copy.srcPitch = copy.WidthInBytes;
  copy.srcHeight = height;
  copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.dstArray = array;
  CHECK(cuMemcpy3D(&copy));
  CHECK(cuStreamSynchronize(CU_STREAM_LEGACY));
}

inline std::vector<float> contents(CUarray array, size_t width, size_t height, size_t depth = 1) {
  std::vector<float> values(width * height * depth, -1.0F);
  CUDA_MEMCPY3D copy = copy_of(width, height, depth);
  copy.srcMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.srcArray = array;
  copy.dstMemoryType = CU_MEMORYTYPE_HOST;
  copy.dstHost = values.data();
  copy.dstPitch = copy.WidthInBytes;
  copy.dstHeight = height;
  CHECK(cuMemcpy3D(&copy));
  return values;
}
