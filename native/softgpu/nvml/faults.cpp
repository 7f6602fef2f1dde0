// Reading what a test says of a device.
// SPDX-License-Identifier: Apache-2.0
#include "faults.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace softgpu {

bool nvml_fault(int index, const char* name, uint64_t* value) {
  const char* path = std::getenv("SOFTGPU_NVML_FAULTS");
  FILE* file = path == nullptr ? nullptr : std::fopen(path, "re");
  if (file == nullptr) return false;
  bool found = false;
  char line[128];
  while (!found && std::fgets(line, sizeof line, file) != nullptr) {
    int of = -1;
    char what[32];
    uint64_t amount = 0;
    if (std::sscanf(line, "%d %31s %" SCNu64, &of, what, &amount) != 3) continue;
    found = of == index && std::strcmp(what, name) == 0;
    if (found) *value = amount;
  }
  std::fclose(file);
  return found;
}

}  // namespace softgpu
