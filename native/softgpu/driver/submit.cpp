// How entry points hand an operation to a stream, or to the graph that it captures into.
// SPDX-License-Identifier: Apache-2.0
#include "submit.hpp"

#include "capture.hpp"
#include "green_context.hpp"

namespace softgpu {
namespace {

/// The operation as a node's content. Streams put nothing else into a capture.
NodeContent node_content(Operation&& operation) {
  if (auto* kernel = std::get_if<KernelOperation>(&operation)) return std::move(*kernel);
  if (auto* copy = std::get_if<CopyOperation>(&operation)) return std::move(*copy);
  if (auto* set = std::get_if<MemsetOperation>(&operation)) return std::move(*set);
  if (auto* host = std::get_if<HostOperation>(&operation)) return std::move(*host);
  return EmptyContent{};
}

bool capturable(const Operation& operation) {
  // A graph would have to keep what a reference was bound to.
  if (const auto* kernel = std::get_if<KernelOperation>(&operation)) {
    return kernel->references.empty();
  }
  return std::holds_alternative<CopyOperation>(operation) ||
         std::holds_alternative<MemsetOperation>(operation) ||
         std::holds_alternative<HostOperation>(operation);
}

}  // namespace

CUresult stream_of(Context& context, CUstream handle, std::shared_ptr<Stream>* out) {
  *out = find_stream(handle, context);
  if (!*out) return CUDA_ERROR_INVALID_HANDLE;
  return (*out)->orphaned() ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_SUCCESS;
}

CUresult submit(Context& context, CUstream handle, Operation operation) {
  std::shared_ptr<Stream> stream;
  if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
  if (auto* kernel = std::get_if<KernelOperation>(&operation); kernel && stream->green) {
    kernel->launch.multiprocessors = stream->green->multiprocessors;
  }
  if (stream->capturing.load()) {
    if (!capturable(operation))
      return spoil_capture(*stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return capture_operation(*stream, node_content(std::move(operation)));
  }
  if (stream->legacy) {
    if (CUresult r = refuse_legacy(*stream); r != CUDA_SUCCESS) return r;
  }
  stream->submit(std::move(operation));
  return CUDA_SUCCESS;
}

CUresult submit_and_wait(Context& context, CUstream handle, Operation operation) {
  std::shared_ptr<Stream> stream;
  if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
  if (stream->capturing.load()) {
    return spoil_capture(*stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  if (stream->legacy) {
    if (CUresult r = refuse_legacy(*stream); r != CUDA_SUCCESS) return r;
  }
  stream->submit(std::move(operation), /*inline_any=*/true);
  return stream->synchronize();
}

}  // namespace softgpu
