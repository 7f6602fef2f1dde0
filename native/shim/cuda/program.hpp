// What the servers' connections tell the program: progress, host functions, errors that come late.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "client/server.hpp"

namespace outboard::shim {

struct Context;

/// The one listener of all servers of this process.
client::Owner* program();

/// Releases what waits for bytes of the context's streams: none will come or leave any more.
void drop_copies(Context* context);

}  // namespace outboard::shim
