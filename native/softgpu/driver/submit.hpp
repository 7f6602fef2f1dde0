// How entry points hand an operation to a stream, or to the graph that it captures into.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "context.hpp"
#include "operation.hpp"
#include "stream.hpp"

namespace softgpu {

/// The stream that a handle names, or CUDA_ERROR_INVALID_HANDLE.
CUresult stream_of(Context& context, CUstream handle, std::shared_ptr<Stream>* out);

/// Appends the operation to the stream, or to its capture.
CUresult submit(Context& context, CUstream handle, Operation operation);

/// As submit(), for a call that returns when the operation is complete. Not allowed in a capture.
CUresult submit_and_wait(Context& context, CUstream handle, Operation operation);

}  // namespace softgpu
