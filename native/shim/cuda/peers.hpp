// Plain copies between two contexts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {

/// Does a plain copy in the order of all work of both contexts, and of the current one's.
template <typename Copy>
CUresult between_peers(CUcontext to, CUcontext from, Copy&& copy) {
  bool others = false;
  for (const CUcontext value : {to, from}) {
    const Context* context = find(value);
    if (context == nullptr || context == thread_state.current) continue;
    if (const CUresult result = shim::cuCtxSynchronize_v2(value); result != CUDA_SUCCESS) {
      return result;
    }
    others = true;
  }
  const CUresult result = copy();
  return result == CUDA_SUCCESS && others ? shim::cuCtxSynchronize() : result;
}

}  // namespace outboard::shim
