// How many blocks fit on a multiprocessor.
// SPDX-License-Identifier: Apache-2.0
#include "occupancy.hpp"

#include <algorithm>

#include "config.hpp"
#include "function.hpp"
#include "guard.hpp"

namespace softgpu {
namespace {

int round_to(int value, int unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

int registers_per_thread(const KernelInfo& kernel) {
  int threads = std::clamp(static_cast<int>(kernel.max_threads), 1, kMaxThreadsPerBlock);
  int most = kRegistersPerBlock / round_to(threads, kWarp * kWarpGranularity) / 8 * 8;
  return std::clamp(static_cast<int>(kernel.registers), 1, std::min(most, 255));
}

int blocks_per_sm(const KernelInfo& kernel, int block_threads, size_t dynamic_shared_bytes) {
  if (block_threads <= 0 || block_threads > static_cast<int>(kernel.max_threads) ||
      block_threads > kMaxThreadsPerBlock) {
    return 0;
  }
  int warps = (block_threads + kWarp - 1) / kWarp;
  int blocks = std::min(kMaxBlocksPerSm, kMaxThreadsPerSm / kWarp / warps);
  size_t shared = kernel.static_shared_bytes + dynamic_shared_bytes + kSharedReservedPerBlock;
  if (shared > static_cast<size_t>(kSharedPerSm)) return 0;
  blocks = std::min(blocks, kSharedPerSm / round_to(static_cast<int>(shared), kSharedUnit));
  int per_warp = round_to(registers_per_thread(kernel) * kWarp, kRegisterUnit);
  int warps_by_registers = kRegistersPerBlock / per_warp / kWarpGranularity * kWarpGranularity;
  return std::min(blocks, warps_by_registers / warps);
}

}  // namespace softgpu

using namespace softgpu;

namespace {

/// For questions about one function: `call(const Function&)`.
template <class Call>
CUresult with_function(CUfunction handle, Call&& call) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::shared_ptr<Function> function;
    if (CUresult r = find_function(handle, context, &function); r != CUDA_SUCCESS) return r;
    return call(*function);
  });
}

}  // namespace

extern "C" CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* out, CUfunction f,
                                                                         int block_threads,
                                                                         size_t dynamic_shared,
                                                                         unsigned int flags) {
  return with_function(f, [&](const Function& function) {
    if (out == nullptr || block_threads <= 0 || flags > 1) return CUDA_ERROR_INVALID_VALUE;
    *out = blocks_per_sm(function.info(), block_threads, dynamic_shared);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, CUfunction f,
                                                                int block_threads,
                                                                size_t dynamic_shared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(out, f, block_threads, dynamic_shared,
                                                              0);
}

extern "C" CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* min_grid, int* block_size,
                                                              CUfunction f,
                                                              CUoccupancyB2DSize shared_of_block,
                                                              size_t dynamic_shared, int limit,
                                                              unsigned int flags) {
  return with_function(f, [&](const Function& function) {
    if (min_grid == nullptr || block_size == nullptr || flags > 1) return CUDA_ERROR_INVALID_VALUE;
    int most = std::min<int>(static_cast<int>(function.info().max_threads), kMaxThreadsPerBlock);
    if (limit > 0) most = std::min(most, limit);
    int best_threads = 0, best_block = 0, best_blocks = 0;
    for (int block = (most + kWarp - 1) / kWarp * kWarp; block > 0; block -= kWarp) {
      int threads = std::min(block, most);
      size_t shared = shared_of_block ? shared_of_block(threads) : dynamic_shared;
      int blocks = blocks_per_sm(function.info(), threads, shared);
      if (blocks * threads > best_threads) {
        best_threads = blocks * threads;
        best_block = threads;
        best_blocks = blocks;
      }
      if (best_threads == kMaxThreadsPerSm) break;
    }
    *min_grid = best_blocks * kSmCount;
    *block_size = best_block;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuOccupancyMaxPotentialBlockSize(int* min_grid, int* block_size, CUfunction f,
                                                     CUoccupancyB2DSize shared_of_block,
                                                     size_t dynamic_shared, int limit) {
  return cuOccupancyMaxPotentialBlockSizeWithFlags(min_grid, block_size, f, shared_of_block,
                                                   dynamic_shared, limit, 0);
}

extern "C" CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t* out, CUfunction f, int blocks,
                                                            int block_threads) {
  return with_function(f, [&](const Function& function) {
    if (out == nullptr || blocks <= 0 || block_threads <= 0) return CUDA_ERROR_INVALID_VALUE;
    if (blocks_per_sm(function.info(), block_threads, 0) < blocks) return CUDA_ERROR_INVALID_VALUE;
    int each = kSharedPerSm / blocks / kSharedUnit * kSharedUnit - kSharedReservedPerBlock;
    each = std::min(each, kSharedPerBlockOptIn);
    *out = static_cast<size_t>(
        std::max(0, each - static_cast<int>(function.info().static_shared_bytes)));
    return CUDA_SUCCESS;
  });
}

// There are no clusters below compute capability 9.0: each block is one of its own.
extern "C" CUresult cuOccupancyMaxPotentialClusterSize(int* out, CUfunction f,
                                                       const CUlaunchConfig* config) {
  return with_function(f, [&](const Function&) {
    if (out == nullptr || config == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = 1;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuOccupancyMaxActiveClusters(int* out, CUfunction f,
                                                 const CUlaunchConfig* config) {
  return with_function(f, [&](const Function& function) {
    if (out == nullptr || config == nullptr) return CUDA_ERROR_INVALID_VALUE;
    int threads = static_cast<int>(config->blockDimX * config->blockDimY * config->blockDimZ);
    *out = kSmCount * blocks_per_sm(function.info(), threads, config->sharedMemBytes);
    return CUDA_SUCCESS;
  });
}
