// Moving bytes between program and device: which of the wire's copies a copy becomes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

namespace outboard::shim {

struct Stream;

/// How the call that the copy comes from must return.
enum class When {
  done,    ///< a plain copy: the source may be used again, the destination is filled
  queued,  ///< an async copy: the same, but pinned memory is read and written later
};

/// Each checks the device's range and capture; the stream is checked already.
CUresult copy_to_device(Stream* stream, uint64_t to, const void* from, size_t bytes, When when);
CUresult copy_to_host(Stream* stream, void* to, uint64_t from, size_t bytes, When when);
CUresult copy_on_device(Stream* stream, uint64_t to, uint64_t from, size_t bytes);
/// Bytes to and from device memory of ours, which the program cannot name: no checks. What is read
/// later has to be waited for as the stream is.
CUresult send_bytes(Stream* stream, uint64_t to, const void* from, size_t bytes);
CUresult fetch_bytes_later(Stream* stream, void* to, uint64_t from, size_t bytes);
CUresult fetch_bytes_now(Stream* stream, void* to, uint64_t from, size_t bytes);
/// By what the addresses are.
CUresult copy_any(Stream* stream, uint64_t to, uint64_t from, size_t bytes, When when);

}  // namespace outboard::shim
