// The per-thread default stream of the _ptds and _ptsz entry points.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "api.hpp"

namespace softgpu {

/// While above zero, stream handle 0 means CU_STREAM_PER_THREAD on this thread.
extern thread_local int per_thread_depth;

template <class Call>
CUresult per_thread(Call&& call) {
  ++per_thread_depth;
  CUresult result = call();
  --per_thread_depth;
  return result;
}

}  // namespace softgpu
