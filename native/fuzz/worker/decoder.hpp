// One worker in this process, fed with bytes; the target of the fuzzer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "worker/driver.hpp"

namespace outboard::fuzz {

/// The driver that the targets run on; the null driver.
void use_driver(const worker::Driver& driver);

/// The exit code of a worker that reads these bytes and then the end of the connection. Ends this
/// process where the worker does not within 5 s.
int feed(std::span<const std::byte> bytes);

}  // namespace outboard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes);
