// What the driver says of its devices: the client's snapshot, the agent's inventory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "worker/worker.hpp"

namespace outboard::worker {

/// GPU-8-4-4-4-12, as nvidia-smi writes it.
std::string uuid_text(const Driver& driver, CUdevice device);

/// What a context takes of a device's memory: the difference that a second one makes.
uint64_t measure_context_bytes(const Driver& driver, CUdevice device);

/// One device of the welcome (docs/internals/wire.md §2).
nlohmann::json describe_device(const Driver& driver, const std::vector<Device>& devices,
                               size_t index);

/// The line that --inventory prints; empty, with the reason in `error`, on failure.
std::string inventory(const Driver& driver, std::string* error);

}  // namespace outboard::worker
