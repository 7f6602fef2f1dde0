// Handles that mean something to other processes of the session (docs/internals/ipc.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

#include "shim/cuda/addresses.hpp"
#include "shim/cuda/objects.hpp"
#include "wire/interprocess.hpp"

namespace outboard::shim {

/// As commands have it: the id of the worker that made the token, and the token.
using SharedName = std::array<uint8_t, 32>;

SharedName name_of(const wire::InterprocessHandle& handle);
wire::InterprocessHandle make_handle(wire::Shared kind, const Device* device,
                                     const SharedName& name);
/// The id of the worker that serves this process there, with a token of zeros.
SharedName own_name(const Device* device);

/// A new descriptor that holds the handle.
CUresult export_descriptor(const wire::InterprocessHandle& handle, void* fd);
/// The handle that a descriptor of another process holds; nobody's: CUDA_ERROR_INVALID_VALUE.
CUresult import_descriptor(const void* fd, wire::Shared kind, wire::InterprocessHandle* handle);

/// The device of this process that the handle's memory lies on; else says so, and
/// CUDA_ERROR_NOT_SUPPORTED.
CUresult device_of(const wire::InterprocessHandle& handle, Device** device);
/// Has the token's memory mapped for this process, in `context`; `range` gets its place.
CUresult import_memory(Context* context, const wire::InterprocessHandle& handle, Range* range);
/// What another process may look at: the token of the allocation that holds `range.base`.
CUresult export_memory(const Range& range, SharedName* name);

}  // namespace outboard::shim
