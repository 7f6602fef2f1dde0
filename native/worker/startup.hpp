// Becoming a worker: options, the process's own limits, the driver.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "worker/confinement.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {

struct Options {
  std::string driver;  ///< absolute path
  bool inventory = false;
  bool rehearsal = false;  ///< see whether the driver starts, and no more
  int control_fd = -1;
  std::string id;
  std::string agent_socket;  ///< where a worker that lost its agent calls the next one
  std::vector<std::pair<std::string, std::string>> environment;
  std::vector<int> warm_devices;
  bool confined = true;
  bool own_files = false;  ///< the agent made a file system for it
};

/// False, with a line in `error`, where the arguments are not a worker's.
bool read_options(int argc, char** argv, Options* options, std::string* error);

/// Executes the program again under the legacy address layout, if it is not there yet: what the
/// driver places itself then lies clear of programs and libraries. Returns where it is, or cannot
/// be.
void use_legacy_layout(char** argv);

/// No new privileges, no core, not readable by others; the agent's death is no signal.
void restrict_process();

/// What the process gives up before it loads the driver.
Confinement confinement_of(const Options& options);

/// Retains the primary contexts of these devices, so that a program's first use of one is quick,
/// and measures what a context takes (by the driver's index).
std::map<int, uint64_t> warm(const Driver& driver, const std::vector<int>& devices);

/// The devices of a session, in its order; false where the driver has no such device. What was not
/// measured is measured now.
bool claim_devices(const Driver& driver, const std::vector<std::pair<int, uint64_t>>& claimed,
                   const std::map<int, uint64_t>& context_bytes, std::vector<Device>* devices,
                   std::string* error);

}  // namespace outboard::worker
