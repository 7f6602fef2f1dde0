// Occupancy: the server's driver is asked once for each function and arguments.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

enum Kind : uint32_t {
  active_blocks = 0,
  available_shared = 1,
  potential_block = 2,
  active_clusters = 3,
  potential_cluster = 4,
};

struct Question {
  Kind kind;
  uint32_t block;
  uint32_t blocks_or_limit;
  uint64_t shared_bytes;
  uint64_t flags;
};

CUresult ask(CUfunction f, const Question& question, std::span<const std::byte> attributes,
             std::pair<int64_t, int64_t>* out) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Function* function = find(f);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const std::array<uint64_t, 5> key{uint64_t{question.kind} << 32 | context->head.index,
                                    question.block, question.blocks_or_limit, question.shared_bytes,
                                    question.flags};
  const std::lock_guard guard(function->mutex);
  // Cluster questions carry attributes, which are no part of the key.
  const bool remember = attributes.empty();
  if (remember) {
    const auto found = function->occupancy.find(key);
    if (found != function->occupancy.end()) {
      *out = found->second;
      return CUDA_SUCCESS;
    }
  }
  wire::command::Occupancy command;
  command.function = function->head.id();
  command.kind = question.kind;
  command.block = question.block;
  command.blocks_or_limit = question.blocks_or_limit;
  command.shared_bytes = question.shared_bytes;
  command.flags = question.flags;
  command.attributes = attributes;
  client::Answer<wire::command::Occupancy> answer;
  const CUresult result = call(context, command, &answer);
  if (result != CUDA_SUCCESS) return result;
  *out = {answer.reply.first, answer.reply.second};
  if (remember) function->occupancy.emplace(key, *out);
  return CUDA_SUCCESS;
}

CUresult ask_cluster(int* out, CUfunction func, const CUlaunchConfig* config, Kind kind) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (out == nullptr || config == nullptr || config->numAttrs > 64 ||
      (config->numAttrs != 0 && config->attrs == nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::vector<CUlaunchAttribute> attributes(config->numAttrs);
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    std::memset(&attributes[i], 0, sizeof attributes[i]);
    attributes[i].id = config->attrs[i].id;
    attributes[i].value = config->attrs[i].value;
  }
  std::pair<int64_t, int64_t> answer;
  const CUresult result =
      ask(func,
          {kind, config->blockDimX * config->blockDimY * config->blockDimZ,
           config->gridDimX * config->gridDimY * config->gridDimZ, config->sharedMemBytes, 0},
          std::as_bytes(std::span(attributes)), &answer);
  if (result == CUDA_SUCCESS) *out = static_cast<int>(answer.first);
  return result;
}

// The same search that the driver does, for programs whose shared memory depends on the block: the
// callback can only be called here.
CUresult search_block(int* minGridSize, int* blockSize, CUfunction func,
                      CUoccupancyB2DSize callback, int limit, unsigned flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const Function* function = find(func);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const Device* device = context->device;
  const int warp = std::max(1, device->attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE));
  int most = function->attributes[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK].load();
  if (limit > 0) most = std::min(most, limit);
  int best_threads = 0;
  *minGridSize = *blockSize = 0;
  for (int block = (most + warp - 1) / warp * warp; block > 0; block -= warp) {
    const int threads = std::min(block, most);
    std::pair<int64_t, int64_t> answer;
    const CUresult result =
        ask(func, {active_blocks, static_cast<uint32_t>(threads), 0, callback(threads), flags}, {},
            &answer);
    if (result != CUDA_SUCCESS) return result;
    const int resident = static_cast<int>(answer.first) * threads;
    if (resident <= best_threads) continue;
    best_threads = resident;
    *blockSize = threads;
    *minGridSize = static_cast<int>(answer.first) *
                   device->attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    if (resident == device->attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)) break;
  }
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* numBlocks, CUfunction func,
                                                              int blockSize, size_t dynamicSMemSize,
                                                              unsigned int flags) {
  if (numBlocks == nullptr || blockSize <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::pair<int64_t, int64_t> answer;
  const CUresult result =
      ask(func, {active_blocks, static_cast<uint32_t>(blockSize), 0, dynamicSMemSize, flags}, {},
          &answer);
  if (result == CUDA_SUCCESS) *numBlocks = static_cast<int>(answer.first);
  return result;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* numBlocks, CUfunction func, int blockSize,
                                                     size_t dynamicSMemSize) {
  return shim::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks, func, blockSize,
                                                                    dynamicSMemSize, 0);
}

CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* minGridSize, int* blockSize,
                                                   CUfunction func,
                                                   CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                                   size_t dynamicSMemSize, int blockSizeLimit,
                                                   unsigned int flags) {
  if (minGridSize == nullptr || blockSize == nullptr || blockSizeLimit < 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (blockSizeToDynamicSMemSize != nullptr) {
    return search_block(minGridSize, blockSize, func, blockSizeToDynamicSMemSize, blockSizeLimit,
                        flags);
  }
  std::pair<int64_t, int64_t> answer;
  const CUresult result =
      ask(func, {potential_block, 0, static_cast<uint32_t>(blockSizeLimit), dynamicSMemSize, flags},
          {}, &answer);
  if (result != CUDA_SUCCESS) return result;
  *minGridSize = static_cast<int>(answer.first);
  *blockSize = static_cast<int>(answer.second);
  return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxPotentialBlockSize(int* minGridSize, int* blockSize, CUfunction func,
                                          CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                          size_t dynamicSMemSize, int blockSizeLimit) {
  return shim::cuOccupancyMaxPotentialBlockSizeWithFlags(
      minGridSize, blockSize, func, blockSizeToDynamicSMemSize, dynamicSMemSize, blockSizeLimit, 0);
}

CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t* dynamicSmemSize, CUfunction func,
                                                 int numBlocks, int blockSize) {
  if (dynamicSmemSize == nullptr || numBlocks <= 0 || blockSize <= 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::pair<int64_t, int64_t> answer;
  const CUresult result = ask(
      func,
      {available_shared, static_cast<uint32_t>(blockSize), static_cast<uint32_t>(numBlocks), 0, 0},
      {}, &answer);
  if (result == CUDA_SUCCESS) *dynamicSmemSize = static_cast<size_t>(answer.first);
  return result;
}

CUresult cuOccupancyMaxActiveClusters(int* numClusters, CUfunction func,
                                      const CUlaunchConfig* config) {
  return ask_cluster(numClusters, func, config, active_clusters);
}

CUresult cuOccupancyMaxPotentialClusterSize(int* clusterSize, CUfunction func,
                                            const CUlaunchConfig* config) {
  return ask_cluster(clusterSize, func, config, potential_cluster);
}

}  // namespace outboard::shim
