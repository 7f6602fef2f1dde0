// Reads the software GPU's settings from the environment.
// SPDX-License-Identifier: Apache-2.0
#include "config.hpp"

#include <cstdio>
#include <cstdlib>

namespace softgpu {
namespace {

/// The variable's number where it lies within the limits; else the present value, with one line.
double number(const char* name, double present, double low, double high) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return present;
  char* end = nullptr;
  double value = std::strtod(text, &end);
  if (*end == '\0' && value >= low && value <= high) return value;
  std::fprintf(stderr, "softgpu: %s=%s is not a number from %g to %g; using %g\n", name, text, low,
               high, present);
  return present;
}

Config read() {
  Config c;
  c.devices = static_cast<int>(number("SOFTGPU_DEVICES", c.devices, 0, 16));
  constexpr double kMib = 1024.0 * 1024.0;
  double mib =
      number("SOFTGPU_MEMORY_MIB", static_cast<double>(c.memory_bytes) / kMib, 64, 1 << 22);
  c.memory_bytes = static_cast<uint64_t>(mib) << 20;
  c.threads = static_cast<int>(number("SOFTGPU_THREADS", c.threads, 0, 1024));
  double cc = number("SOFTGPU_CC", c.compute_capability, 5, 130);
  if (cc < 20) cc = cc * 10;  // written as 8.0
  c.compute_capability = static_cast<int>(cc + 0.5);
  c.time_limit_s = number("SOFTGPU_TIME_LIMIT_S", c.time_limit_s, 0, 1e9);
  return c;
}

}  // namespace

const Config& config() {
  static const Config value = read();
  return value;
}

}  // namespace softgpu
