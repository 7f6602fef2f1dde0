// The results that the client runtime itself can give, with the numbers that CUDA gives them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace outboard::client {

/// A driver's result as it stands on the wire; the shims cast it to their own enum.
using Result = int32_t;

namespace result {
inline constexpr Result success = 0;
inline constexpr Result invalid_value = 1;
inline constexpr Result out_of_memory = 2;
inline constexpr Result not_initialized = 3;
inline constexpr Result lost = 46;  ///< CUDA_ERROR_DEVICE_UNAVAILABLE
inline constexpr Result no_device = 100;
inline constexpr Result not_ready = 600;
inline constexpr Result unknown = 999;
}  // namespace result

}  // namespace outboard::client
