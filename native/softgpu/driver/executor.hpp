// The threads that work off streams.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

namespace softgpu {

class Stream;

/// As many threads as streams are busy at once; idle ones are kept. An operation may block (a wait
/// for a value, a host function), and then holds up nothing but its own stream.
struct Executor {
  static void run(std::shared_ptr<Stream> stream);
};

}  // namespace softgpu
