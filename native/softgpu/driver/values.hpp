// Stream memory operations as programs describe them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "device.hpp"
#include "operation.hpp"

namespace softgpu {

/// Checks the description; nothing comes out for operations that have no effect here.
CUresult value_operation(const Device& device, const CUstreamBatchMemOpParams& parameters,
                         std::optional<ValueOperation>* out);

}  // namespace softgpu
