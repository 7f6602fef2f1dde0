// Decompression of device memory: every address is checked, the rest is the driver's.
// SPDX-License-Identifier: Apache-2.0
#include "wire/decompression.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

template <typename T>
T* pointer(uint64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::MemoryDecompress& command) {
  const size_t count = command.operations.size() / sizeof(wire::Decompression);
  if (count == 0 || command.operations.size() % sizeof(wire::Decompression) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::vector<CUmemDecompressParams> operations(count);
  for (size_t i = 0; i < count; ++i) {
    wire::Decompression one;
    std::memcpy(&one, command.operations.data() + i * sizeof one, sizeof one);
    if (!worker.memory.contains(one.source, one.source_bytes) ||
        !worker.memory.contains(one.destination, std::max<uint64_t>(one.destination_bytes, 1)) ||
        !worker.memory.contains(one.written, sizeof(cuuint32_t))) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    operations[i].srcNumBytes = one.source_bytes;
    operations[i].dstNumBytes = one.destination_bytes;
    operations[i].dstActBytes = pointer<cuuint32_t>(one.written);
    operations[i].src = pointer<const void>(one.source);
    operations[i].dst = pointer<void>(one.destination);
    operations[i].algo = static_cast<CUmemDecompressAlgorithm>(one.algorithm);
  }
  size_t wrong = 0;
  return worker.driver().cuMemBatchDecompressAsync(operations.data(), count, 0, &wrong,
                                                   worker.issuing().handle);
}

}  // namespace outboard::worker
