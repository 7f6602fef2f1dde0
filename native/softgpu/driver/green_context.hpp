// Green contexts: some of a device's multiprocessors, with streams that run there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "context.hpp"
#include "event.hpp"
#include "handles.hpp"
#include "stream.hpp"

namespace softgpu {

/// Memory, modules and events are its context's, which is the device's primary one; its streams are
/// among that one's.
struct GreenContext {
  std::weak_ptr<Context> context;
  uint64_t multiprocessors = 0;  ///< a bit for each
  uint64_t id = 0;
  CUgreenCtx handle = nullptr;
  CUcontext current = nullptr;     ///< the context's other name, under which this is current
  std::shared_ptr<Stream> legacy;  ///< null once it is destroyed
  std::atomic<bool> destroyed{false};
  std::mutex mutex;
  std::shared_ptr<Record> gate;  ///< what its streams to come wait for
};

HandleTable<GreenContext, CUgreenCtx, 22>& green_contexts();

/// The one whose CUcontext this is, or null.
std::shared_ptr<GreenContext> find_green_context(CUcontext handle);
/// The one that is current in the calling thread, or null.
std::shared_ptr<GreenContext> current_green_context();

/// Ends it with its legacy stream; the others stay, of no use.
void end_green_context(GreenContext& green);

/// The default stream where the context, or a part of it, is current.
std::shared_ptr<Stream> default_stream(Context& context);

}  // namespace softgpu
