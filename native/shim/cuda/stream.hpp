// Making streams, the program's and ours.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <atomic>

#include "shim/cuda/objects.hpp"

namespace outboard::shim {

/// `green`: the part of the context that it is of, or null.
CUresult make_stream(Context* context, GreenContext* green, unsigned flags, int priority,
                     Stream** out);

/// The stream of ours that is kept at `place`, made if need be; null: no room. No work of the
/// program's is ordered with it.
Stream* own_stream(std::atomic<Stream*>* place, Context* context, GreenContext* green);

}  // namespace outboard::shim
