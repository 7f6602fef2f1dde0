// The driver that a worker executes on: NVIDIA's, the software GPU's or the null driver.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <memory>
#include <string>

#include "generated/driver_table.hpp"

namespace outboard::worker {

/// Loads the library at an absolute path and fills the table. Refuses a library that carries this
/// project's ELF note: the shim would load itself. Null, with a line in `error`, on failure. The
/// library stays loaded for as long as the process lives.
std::unique_ptr<Driver> open_driver(const std::string& path, std::string* error);

/// Whether a library carries that note.
bool is_shim(const std::string& path);

/// Errors that kill a context: every later call of it gives the same one.
bool kills_context(CUresult result);

/// `CUDA_ERROR_X`, or the number.
std::string error_name(const Driver& driver, CUresult result);

}  // namespace outboard::worker
