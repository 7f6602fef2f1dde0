// Finds the window of an access that left the last one.
// SPDX-License-Identifier: Apache-2.0
#include "memory_view.hpp"

namespace softgpu::simt {
namespace {

bool inside(uint64_t address, uint64_t bytes, const void* begin, uint64_t size) {
  uint64_t in = address - reinterpret_cast<uint64_t>(begin);
  return bytes <= size && in <= size - bytes;
}

Window plain(const void* begin, uint64_t size) {
  return {reinterpret_cast<uint64_t>(begin), size, static_cast<char*>(const_cast<void*>(begin)), 0};
}

}  // namespace

bool find_window(MemoryView* view, MemorySpace space, int lane, uint64_t address, uint32_t bytes,
                 Window* window) {
  if (space != MemorySpace::global && space != MemorySpace::generic) return false;
  if (const Range* r = view->space->table().find(address, bytes)) {
    *window = plain(reinterpret_cast<const void*>(r->base), r->size);
    return true;
  }
  if (space == MemorySpace::global) return false;
  if (inside(address, bytes, view->shared.host, view->shared.size)) {
    *window = plain(view->shared.host, view->shared.size);
    return true;
  }
  if (inside(address, bytes, view->local_begin, view->local_bytes)) {
    *window = plain(view->local_begin, view->local_bytes);
    return true;
  }
  if (inside(address, bytes, view->param.host, view->param.size)) {
    *window = plain(view->param.host, view->param.size);
    return true;
  }
  return false;
}

}  // namespace softgpu::simt
