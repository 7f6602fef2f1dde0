// Green contexts: how they are found and how they end.
// SPDX-License-Identifier: Apache-2.0
#include "green_context.hpp"

#include "../../tables/tables.hpp"

namespace softgpu {

HandleTable<GreenContext, CUgreenCtx, 22>& green_contexts() {
  static auto& table = *new HandleTable<GreenContext, CUgreenCtx, 22>;
  return table;
}

std::shared_ptr<GreenContext> current_green_context() {
  return find_green_context(ContextStack::current());
}

void end_green_context(GreenContext& green) {
  if (green.destroyed.exchange(true)) return;
  auto context = green.context.lock();
  if (!context) return;
  outboard::tables::context_destroyed(green.current);
  for (auto& stream : context->streams()) {
    if (stream->green.get() != &green) continue;
    stream->wait_for(stream->issued());
    context->remove_stream(stream.get());
  }
  std::shared_ptr<Stream> cycle = std::move(green.legacy);
  context->remove_green(green);
}

std::shared_ptr<Stream> default_stream(Context& context) {
  std::shared_ptr<GreenContext> green = current_green_context();
  return green && green->legacy ? green->legacy : context.legacy_stream();
}

}  // namespace softgpu
