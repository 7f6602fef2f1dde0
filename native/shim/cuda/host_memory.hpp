// Host memory of ours that devices reach: one address for the program and for them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

namespace outboard::shim {

struct Context;
struct Range;

/// Memory filled with zeros for `range`, whose size, kind and flags are given: shared with the
/// context's server where that is on this host, else kept alike there once a command reaches it.
CUresult allocate_host(Context* context, Range* range);
/// Waits for what uses the memory, and ends it.
CUresult free_host(const Range& range);

}  // namespace outboard::shim
