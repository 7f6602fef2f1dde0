// What a test says of a device: its temperature, its errors, that it is lost.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace softgpu {

/// Whether the file that SOFTGPU_NVML_FAULTS names has a line `INDEX NAME VALUE`, and its value.
/// Read anew each time, so that a test can break a device and mend it. Names: `lost`,
/// `temperature` (°C), `power` (mW), `utilization` (per cent), `ecc` (uncorrected errors), `xid`
/// (the number of a critical error, told as an event).
bool nvml_fault(int index, const char* name, uint64_t* value);

}  // namespace softgpu
