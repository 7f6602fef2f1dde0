// Tiles that are mapped behind more work than is handed to a driver at once, with memory that is
// released meanwhile, which driver 580 by itself does not survive.
// SPDX-License-Identifier: Apache-2.0
#include "graph.hpp"
#include "sparse.hpp"

int main(int argc, char** argv) {
  Program program("sparseBehind", argc, argv);
  const Device device;
  constexpr size_t kSide = 512;
  constexpr size_t kPool = 2 << 20;
  const auto descriptor = described(kSide, kSide, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  const CUdeviceptr words = allocate(8);
  const Stream stream, other;
  CUarray array = nullptr;
  CHECK(cuMemsetD32(words, 0, 2));
  CHECK(cuCtxSynchronize());
  CHECK(cuArray3DCreate(&array, &descriptor));
  CHECK(cuStreamWaitValue32(stream, words, 1, CU_STREAM_WAIT_VALUE_EQ));
  for (unsigned i = 0; i < 700; ++i) CHECK(cuMemsetD32Async(words + 4, i, 1, stream));
  const CUmemGenericAllocationHandle memory = tile_pool(device.device(), kPool);
  CUarrayMapInfo info = box(array, {0, 0, 0}, {kSide, kSide, 1}, memory, 0);
  CHECK(cuMemMapArrayAsync(&info, 1, stream));
  CHECK(cuMemRelease(memory));
  CHECK(cuStreamWriteValue32(other, words, 1, CU_STREAM_WRITE_VALUE_DEFAULT));
  stream.wait();
  const std::vector<float> values = counted(kSide * kSide, 11);
  fill(array, values, kSide, kSide);
  const std::vector<float> plane = contents(array, kSide, kSide);
  program.expect(plane == values, "memory is there when its turn comes");
  program.save(plane);
  CHECK(cuArrayDestroy(array));
  CHECK(cuMemFree(words));
  return program.finish();
}
