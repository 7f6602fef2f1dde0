// Decompression by a device that has an engine for it: what is handed on, and what is refused.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

int main(int argc, char** argv) {
  Program program("decompression", argc, argv);
  CUdevice device = 0;
  CUcontext context = nullptr;
  CUstream stream = nullptr;
  int algorithms = 0;
  CHECK(cuInit(0));
  CHECK(cuDeviceGet(&device, 0));
  CHECK(cuDevicePrimaryCtxRetain(&context, device));
  CHECK(cuCtxSetCurrent(context));
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(
      cuDeviceGetAttribute(&algorithms, CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK, device));
  program.expect((algorithms & CU_MEM_DECOMPRESS_ALGORITHM_LZ4) != 0, "the device has LZ4");

  const CUdeviceptr memory = allocate(3 << 20);
  unsigned capable = 0;
  CHECK(cuPointerGetAttribute(&capable, CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE, memory));
  program.expect(capable == 1, "what is allocated may be decompressed");
  CUmemDecompressParams good{};
  good.src = reinterpret_cast<const void*>(memory);
  good.srcNumBytes = 1000;
  good.dst = reinterpret_cast<void*>(memory + (1 << 20));
  good.dstNumBytes = 1 << 20;
  good.dstActBytes = reinterpret_cast<cuuint32_t*>(memory + (2 << 20));
  good.algo = CU_MEM_DECOMPRESS_ALGORITHM_LZ4;
  std::vector<CUmemDecompressParams> batch(3000, good);
  size_t wrong = 77;
  CHECK(cuMemBatchDecompressAsync(batch.data(), batch.size(), 0, &wrong, stream));
  CHECK(cuMemBatchDecompressAsync(batch.data(), 1, 0, nullptr, stream));
  CHECK(cuStreamSynchronize(stream));

  const auto refused = [&](size_t index) {
    wrong = 77;
    return cuMemBatchDecompressAsync(batch.data(), batch.size(), 0, &wrong, stream) ==
               CUDA_ERROR_INVALID_VALUE &&
           wrong == index;
  };
  batch.resize(3);
  batch[1].src = reinterpret_cast<const void*>(memory + (3 << 20) - 10);
  program.expect(refused(1), "what is beyond the memory is not read");
  batch[1] = good;
  batch[2].dst = &wrong;
  program.expect(refused(2), "nor is anything else written");
  batch[2] = good;
  batch[0].dstActBytes = nullptr;
  program.expect(refused(0), "the device has to count somewhere");
  batch[0] = good;
  batch[2].algo = static_cast<CUmemDecompressAlgorithm>(8);
  program.expect(refused(2), "there are three algorithms");
  program.expect(
      cuMemBatchDecompressAsync(&good, 1, 1, &wrong, stream) == CUDA_ERROR_INVALID_VALUE &&
          wrong == SIZE_MAX &&
          cuMemBatchDecompressAsync(nullptr, 1, 0, nullptr, stream) == CUDA_ERROR_INVALID_VALUE &&
          cuMemBatchDecompressAsync(&good, 0, 0, nullptr, stream) == CUDA_ERROR_INVALID_VALUE,
      "an empty batch and flags are refused as a whole");
  CHECK(cuMemFree(memory));
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}
