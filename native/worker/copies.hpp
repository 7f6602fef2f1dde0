// Copies between the client and device memory, and within device memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "generated/commands.hpp"
#include "worker/streams.hpp"

namespace outboard::worker {

class Worker;

/// Makes the stream ready for the bytes of a copy that has just come. False where its number is
/// taken.
bool announce_upload(Worker& worker, Stream& stream,
                     const wire::command::CopyToDeviceBulk& command);

}  // namespace outboard::worker
