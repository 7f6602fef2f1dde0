// Kernel parameters, in the two forms that a launch has them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

#include "shim/cuda/objects.hpp"
#include "wire/codec.hpp"

namespace outboard::shim {

/// The `extra` form: names and values, ended by a null name.
inline CUresult read_extra(void** extra, const std::byte** buffer, size_t* bytes) {
  *buffer = nullptr;
  *bytes = 0;
  for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) {
      *buffer = static_cast<const std::byte*>(extra[1]);
    } else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) {
      *bytes = *static_cast<const size_t*>(extra[1]);
    } else {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return *buffer != nullptr || *bytes == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/// Writes the field `params` of a Launch: each parameter at the offset that its layout says, gaps
/// zero. `buffer` is the `extra` form's, or null.
inline void write_parameters(wire::Writer& writer, const Function* function, void** parameters,
                             const std::byte* buffer) {
  const uint32_t bytes = function->parameters_bytes;
  const uint32_t head[2] = {bytes, 0};
  writer.raw(head, sizeof head);
  if (buffer != nullptr) {
    writer.raw(buffer, bytes);
  } else {
    uint32_t at = 0;
    for (uint32_t i = 0; i < function->parameter_count; ++i) {
      const Function::Parameter& parameter = function->parameters[i];
      if (parameter.offset != at) writer.zeros(parameter.offset - at);
      writer.raw(parameters[i], parameter.bytes);
      at = parameter.offset + parameter.bytes;
    }
  }
  writer.zeros(wire::padded(bytes) - bytes);
}

}  // namespace outboard::shim
