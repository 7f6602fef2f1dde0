// The software GPU's settings, from SOFTGPU_* environment variables.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace softgpu {

struct Config {
  int devices = 1;                        ///< SOFTGPU_DEVICES, 0 to 16
  uint64_t memory_bytes = 4096ull << 20;  ///< SOFTGPU_MEMORY_MIB, of each device
  int threads = 0;                        ///< SOFTGPU_THREADS; 0: as many as the process may use
  int compute_capability = 80;            ///< SOFTGPU_CC, as 8.0 or 80
  double time_limit_s = 0;                ///< SOFTGPU_TIME_LIMIT_S, of one kernel; 0: none
};

inline constexpr int kDriverVersion = 13000;
inline constexpr int kSmCount = 8;

/// Read once, at the first call.
const Config& config();

}  // namespace softgpu
