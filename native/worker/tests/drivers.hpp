// The drivers that tests run on, from the build or from the environment.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "worker/driver.hpp"

namespace outboard::worker {

inline const Driver& test_driver(const char* variable) {
  const char* path = std::getenv(variable);
  std::string error = std::string("set ") + variable;
  auto driver = open_driver(path ? path : "", &error);
  if (!driver || driver->cuInit(0) != CUDA_SUCCESS) throw std::runtime_error(error);
  return *driver.release();  // drivers are never unloaded
}

inline const Driver& software_gpu() {
  static const Driver& driver = test_driver("OUTBOARD_TEST_SOFTGPU");
  return driver;
}

inline const Driver& null_driver() {
  static const Driver& driver = test_driver("OUTBOARD_TEST_NULLDRIVER");
  return driver;
}

}  // namespace outboard::worker
