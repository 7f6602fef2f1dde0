// Plays the client's half of a recording to a worker in this process and compares the answers'
// results. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "replay/recording.hpp"
#include "worker/driver.hpp"

namespace outboard::replay {

struct Outcome {
  std::string error;  ///< why the replay could not go on; empty where it did
  int exit_code = 0;  ///< the worker's
  uint64_t frames = 0;
  uint64_t commands = 0;
  uint64_t replies = 0;
  std::vector<std::string>
      differences;  ///< answers whose result was another one; the first hundred
  double seconds = 0;
};

/// The frames go out in their order, each after the answers that the client had before it.
Outcome play(const std::vector<Record>& records, const worker::Driver& driver);

}  // namespace outboard::replay
