// Making and ending memory that is shared with a server.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/shared_pages.hpp"

#include "base/log.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUresult share(Context* context, const client::Window& place) {
  client::HostMemory& memory = context->server->host_memory();
  const UniqueFd pages = client::map_pages(place);
  if (!pages) return CUDA_ERROR_OUT_OF_MEMORY;
  if (!memory.hand_over(place.base, pages)) return CUDA_ERROR_NOT_SUPPORTED;
  client::Answer<wire::command::HostShare> answer;
  return call(context, wire::command::HostShare{.address = place.base, .bytes = place.bytes},
              &answer);
}

// Other servers keep copies of it.
bool is_only_server(const client::Server* server) {
  for (int i = 0; i < device_count; ++i) {
    if (devices[i]->server != server) return false;
  }
  return true;
}

}  // namespace

void* make_shared_pages(Context* context, size_t bytes) {
  client::Window place;
  if (!context->server->host_memory().ready() || !reserve_visible(bytes, &place)) return nullptr;
  if (const CUresult result = share(context, place); result != CUDA_SUCCESS) {
    if (tracing("memory")) say("%zu bytes of pinned memory are copied: %d", bytes, result);
    client::release_window(place);
    return nullptr;
  }
  if (!is_only_server(context->server)) open_visible_window();
  return reinterpret_cast<void*>(place.base);
}

void end_shared_pages(const Range& range) {
  if (range.shared) send(range.context, wire::command::HostUnmap{.address = range.base});
}

void forget_shared_pages(const Context* context) {
  if (addresses().end_sharing(context)) open_visible_window();
}

}  // namespace outboard::shim
