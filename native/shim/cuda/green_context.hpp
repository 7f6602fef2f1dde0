// Green contexts, and what becomes of them with their context.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "shim/cuda/objects.hpp"

namespace outboard::shim {

/// Waits for all that the green context's streams have.
CUresult synchronize(GreenContext* green);
/// The context has ended, and its parts with it.
void forget_green_contexts(const Context* context);

/// Of all streams of a context, or of its part `green`: the event is complete when all is done that
/// they have now; all that they get waits for it.
CUresult record_whole(Context* context, GreenContext* green, CUevent event);
CUresult wait_whole(Context* context, GreenContext* green, CUevent event);

}  // namespace outboard::shim
