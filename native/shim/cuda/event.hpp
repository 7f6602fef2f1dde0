// Events on streams that are known, for calls about more than one stream.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "shim/cuda/objects.hpp"

namespace outboard::shim {

CUresult record_event(Event* event, Stream* stream, unsigned flags);
CUresult await_event(Stream* stream, Event* event, unsigned flags);

/// What comes to `stream` from now on waits for what is on `other`.
CUresult follow(Stream* stream, Stream* other);

}  // namespace outboard::shim
