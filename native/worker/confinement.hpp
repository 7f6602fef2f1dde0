// What a worker gives up before it loads a driver: it is taken to be its client's puppet.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace outboard::worker {

struct Confinement {
  bool on = true;
  bool own_files = false;          ///< the agent gave it a user and a file system of its own
  bool calls_agent = false;        ///< it looks for its next agent at a path
  std::vector<std::string> reads;  ///< folders that it needs besides the system's, where not
  std::string writes;              ///< the driver's cache; empty: none
};

/// Locks the process in, for good: a system call filter; no TCP of its own and no signals to
/// others, where the kernel has Landlock for that; and, without a file system of its own, no files
/// but libraries and devices. For a process with one thread. What the kernel lacks, a line says.
void confine(const Confinement& wanted);

}  // namespace outboard::worker
