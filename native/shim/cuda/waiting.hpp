// Waiting for a stream, and what a synchronous copy to the device promises to the other streams.
// SPDX-License-Identifier: Apache-2.0
//
// A plain copy to the device (cuMemcpyHtoD) returns when its bytes have left, before they are in
// place. Its own stream, and the streams that the legacy default stream orders, come after it by
// themselves. For any other stream the next command first waits until the copy is done: a program
// may rely on that, since natively the call itself waits. So that this wait ends where the native
// one does, a copy behind other work waits in the call, as CUDA's documentation says it does.
#pragma once

#include <cuda.h>

#include <atomic>

#include "shim/cuda/addresses.hpp"
#include "shim/cuda/objects.hpp"

namespace outboard::shim {

/// One round trip: everything issued on the stream is done, its bytes are in place.
CUresult wait_all(Stream* stream);

/// Whether all work of the stream is known to be done; of the legacy stream, that of the context's
/// blocking streams as well.
bool is_idle(const Stream* stream);

/// Whether the next command of the stream would come after nothing that is not known to be done,
/// of the stream's own and of what the legacy stream orders.
bool is_first(const Stream* stream);

/// Whether another process may look at memory of this one.
extern std::atomic<bool> shares_memory;

/// Whether a plain copy on the stream may return before it is done: nothing else is ahead of it,
/// and no other process, whose work is ordered by none of this one's streams, may look.
bool may_return_early(Stream* stream);
/// A plain copy, command number `count` of its stream, has returned early.
void note_upload(Stream* stream, uint64_t count);

/// Waits for the plain copies to the server that returned early: their memory is about to go.
CUresult finish_uploads(const client::Server* server);

/// Before work on any stream.
CUresult await_upload_slow(Stream* stream);
inline CUresult await_upload(Stream* stream) {
  return stream->context->upload_count.load(std::memory_order_relaxed) == 0
             ? CUDA_SUCCESS
             : await_upload_slow(stream);
}

/// What keeps work in a stream from memory: a driver copies between its devices wherever they are,
/// but between the program and a device only where that is the stream's or open to it.
enum class Beyond { device, server };

/// Where work on the memory of `range` goes: to `*stream`, or where the memory is beyond that, to
/// the default stream of the memory's own context, after all that is in `*stream`. `*away` says so:
/// the call then waits, since nothing on one server waits for another.
CUresult stream_for(const Range& range, Stream** stream, bool* away,
                    Beyond beyond = Beyond::device);

}  // namespace outboard::shim
