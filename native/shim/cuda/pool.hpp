// Stream-ordered memory that goes back to its pool.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace outboard::shim {

struct Pool;

/// The program has so many bytes less of the pool.
void give_back(Pool* pool, uint64_t bytes);

}  // namespace outboard::shim
