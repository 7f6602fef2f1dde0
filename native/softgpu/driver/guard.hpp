// What every entry point begins with: is there a driver, a context, a capture that forbids it?
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <new>
#include <utility>

#include "api.hpp"
#include "context.hpp"

namespace softgpu {

/// True on a thread that runs a host function: CUDA calls are not permitted there.
extern thread_local bool in_host_function;

/// Takes down that a call failed, for cuLogs*.
void log_failure(const char* function, CUresult result) noexcept;

/// No exception crosses `extern "C"`. What fails is logged under the name of the entry point.
template <class Call>
CUresult guarded(Call&& call, const char* function = __builtin_FUNCTION()) noexcept {
  CUresult result = CUDA_SUCCESS;
  try {
    result = call();
  } catch (const std::bad_alloc&) {
    result = CUDA_ERROR_OUT_OF_MEMORY;
  } catch (...) {
    result = CUDA_ERROR_UNKNOWN;
  }
  if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY) [[unlikely]] {
    log_failure(function, result);
  }
  return result;
}

/// For calls that need cuInit alone.
template <class Call>
CUresult with_driver(Call&& call, const char* function = __builtin_FUNCTION()) noexcept {
  if (!Driver::initialised()) return CUDA_ERROR_NOT_INITIALIZED;
  if (in_host_function) return CUDA_ERROR_NOT_PERMITTED;
  return guarded(std::forward<Call>(call), function);
}

/// The current context, if it lives and has no fault.
inline CUresult current_context(std::shared_ptr<Context>* out) {
  if (!Driver::initialised()) return CUDA_ERROR_NOT_INITIALIZED;
  if (in_host_function) return CUDA_ERROR_NOT_PERMITTED;
  CUcontext handle = ContextStack::current();
  if (handle == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *out = find_context(handle);
  if (!*out) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return (*out)->fault();
}

/// For calls that work in the current context: `call(Context&)`.
template <class Call>
CUresult with_context(Call&& call, const char* function = __builtin_FUNCTION()) noexcept {
  return guarded(
      [&]() -> CUresult {
        std::shared_ptr<Context> context;
        if (CUresult r = current_context(&context); r != CUDA_SUCCESS) return r;
        return call(*context);
      },
      function);
}

/// For calls that a running stream capture may forbid (CUDA calls them potentially unsafe): the
/// error, which also spoils the captures concerned, or CUDA_SUCCESS.
CUresult refuse_in_capture();

/// with_context for such calls.
template <class Call>
CUresult with_context_uncaptured(Call&& call,
                                 const char* function = __builtin_FUNCTION()) noexcept {
  return with_context(
      [&](Context& context) -> CUresult {
        if (CUresult r = refuse_in_capture(); r != CUDA_SUCCESS) return r;
        return call(context);
      },
      function);
}

}  // namespace softgpu
