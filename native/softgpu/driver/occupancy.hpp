// The multiprocessor that this device pretends to have, and how many blocks fit on it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "../engine/engine.hpp"

namespace softgpu {

// As an A100 (compute capability 8.0) but for the number of multiprocessors.
inline constexpr int kMaxThreadsPerBlock = 1024;
inline constexpr int kMaxThreadsPerSm = 2048;
inline constexpr int kMaxBlocksPerSm = 32;
inline constexpr int kRegistersPerSm = 65536;
inline constexpr int kRegistersPerBlock = 65536;
inline constexpr int kSharedPerBlock = 48 << 10;
inline constexpr int kSharedPerBlockOptIn = 163 << 10;
inline constexpr int kSharedPerSm = 164 << 10;
inline constexpr int kSharedReservedPerBlock = 1 << 10;
inline constexpr int kWarp = 32;
inline constexpr int kSharedUnit = 128;     ///< bytes
inline constexpr int kRegisterUnit = 256;   ///< registers, allocated for a warp at a time
inline constexpr int kWarpGranularity = 4;  ///< a multiprocessor has four parts

/// Registers of a thread, as a compiler would have assigned them: never so many that the largest
/// block that the kernel allows does not fit. (Libraries divide by the number of blocks that fit.)
int registers_per_thread(const KernelInfo& kernel);

/// Blocks of this size that one multiprocessor holds at once; 0 where not even one fits.
int blocks_per_sm(const KernelInfo& kernel, int block_threads, size_t dynamic_shared_bytes);

}  // namespace softgpu
