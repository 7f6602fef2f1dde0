// Pinned memory that is one with the server's, where program and server are on one host.
// SPDX-License-Identifier: Apache-2.0
//
// Both map the same pages at the same address, and the server's driver knows them. What is a copy
// kept alike over a network (device_view.hpp) is the memory itself here: kernels read and write it
// while they run, wherever they found its address, and copies are the driver's own. It is shared
// with the server of the context in which it was made, as long as that context lives.
#pragma once

#include <cstddef>
#include <cstdint>

namespace outboard::shim {

struct Context;
struct Range;

/// Page-aligned memory filled with zeros, shared with the context's server; null: not possible.
void* make_shared_pages(Context* context, size_t bytes);
/// The server's part goes; nothing uses it any more.
void end_shared_pages(const Range& range);
/// The context ended, and at the server what was shared in it.
void forget_shared_pages(const Context* context);

}  // namespace outboard::shim
