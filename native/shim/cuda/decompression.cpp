// Decompression of device memory by a device's engine.
// SPDX-License-Identifier: Apache-2.0
#include "wire/decompression.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

bool is_memory(const void* address, size_t bytes) {
  Range range;
  return addresses().is_device(reinterpret_cast<uint64_t>(address), bytes, &range);
}

bool read(const CUmemDecompressParams& from, unsigned algorithms, wire::Decompression* to) {
  unsigned algorithm = 0;  // which may be none that the enumeration has
  std::memcpy(&algorithm, &from.algo, sizeof algorithm);
  const bool padded = std::all_of(std::begin(from.padding), std::end(from.padding),
                                  [](unsigned char byte) { return byte == 0; });
  if (!padded || !std::has_single_bit(algorithm) || (algorithm & algorithms) == 0 ||
      from.srcNumBytes == 0 || !is_memory(from.src, from.srcNumBytes) ||
      !is_memory(from.dst, std::max<size_t>(from.dstNumBytes, 1)) ||
      !is_memory(from.dstActBytes, sizeof(cuuint32_t))) {
    return false;
  }
  *to = {reinterpret_cast<uint64_t>(from.src),         from.srcNumBytes,
         reinterpret_cast<uint64_t>(from.dst),         from.dstNumBytes,
         reinterpret_cast<uint64_t>(from.dstActBytes), algorithm};
  return true;
}

}  // namespace

CUresult cuMemBatchDecompressAsync(CUmemDecompressParams* paramsArray, size_t count,
                                   unsigned int flags, size_t* errorIndex, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS) {
    return result;
  }
  const auto algorithms = static_cast<unsigned>(
      context->device->attribute(CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK));
  if (algorithms == 0) return CUDA_ERROR_NOT_SUPPORTED;
  if (const CUresult result = check_stream_unsafe(stream); result != CUDA_SUCCESS) return result;
  size_t wrong = SIZE_MAX;
  std::vector<wire::Decompression> operations;
  bool right = paramsArray != nullptr && count != 0 && flags == 0;
  for (size_t i = 0; right && i < count; ++i) {
    right = read(paramsArray[i], algorithms, &operations.emplace_back());
    if (!right) wrong = i;
  }
  if (!right) {
    if (errorIndex != nullptr) *errorIndex = wrong;
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send_in_parts<wire::Decompression>(
      stream, operations, wire::most_decompressions, [&](std::span<const std::byte> part) {
        return wire::command::MemoryDecompress{.stream = stream->head.id(), .operations = part};
      });
}

}  // namespace outboard::shim
