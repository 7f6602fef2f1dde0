// Copies between the client and device memory, and within device memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "generated/commands.hpp"
#include "worker/streams.hpp"

namespace outboard::worker {

class Worker;
struct Allocation;

/// Memory for a small copy, free again when the stream is past the command being issued; null where
/// there is none.
std::byte* stage(Worker& worker, Stream& stream, size_t bytes);

/// A context of the device that the memory is on; null where none is alive.
CUcontext context_of(const Worker& worker, const Allocation& allocation);

/// Makes the stream ready for the bytes of a copy that has just come. False where its number is
/// taken.
bool announce_upload(Worker& worker, Stream& stream,
                     const wire::command::CopyToDeviceBulk& command);

}  // namespace outboard::worker
