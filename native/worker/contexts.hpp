// A context of the driver and all that goes with it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/driver.hpp"
#include "worker/staging.hpp"
#include "worker/streams.hpp"

namespace outboard::worker {

struct Context {
  explicit Context(const Driver& table) : driver(table), staging(table) {}

  const Driver& driver;
  uint64_t id = 0;  ///< in the client's table
  CUcontext handle = nullptr;
  unsigned device = 0;  ///< of the session's devices
  bool primary = false;
  bool alive = true;  ///< false once the driver's context is gone: its objects went with it
  CUresult fatal = CUDA_SUCCESS;
  uint64_t context_bytes = 0;  ///< counted against the share
  unsigned loading = 0;        ///< loads, and pinning, under way beside the loop
  std::shared_ptr<Stream> legacy;
  std::vector<std::shared_ptr<Stream>> streams;  ///< all that have work, the legacy one among them
  std::vector<uint64_t> peers;                   ///< contexts whose memory it reaches
  StreamBacklog backlog;
  Staging staging;
  bool prints = false;    ///< a module of it may use device printf
  bool launched = false;  ///< a kernel went out since device printf's text was last asked for
};

class Worker;

/// Ends a context with all that lives in it; nothing of it may be running unless it is dead.
void end_context(Worker& worker, const std::shared_ptr<Context>& context);

}  // namespace outboard::worker
