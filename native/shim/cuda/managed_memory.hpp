// Managed variables of modules (docs/adr/0015-managed-memory.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

namespace outboard::shim {

struct Range;

/// The server's driver manages this variable: the program gets memory at the same address, with the
/// content that the variable has, and both are kept alike from then on.
CUresult adopt_variable(Range range);
/// Its module goes.
void release_variable(uint64_t base);

}  // namespace outboard::shim
