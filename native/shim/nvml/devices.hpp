// The session's devices as NVML tells of them: from the session file and the server's snapshot,
// without a CUDA context. SPDX-License-Identifier: Apache-2.0
#pragma once

#pragma GCC visibility push(default)
#include <nvml.h>
#pragma GCC visibility pop

#include <cstdint>
#include <string>

#include "client/server.hpp"
#include "wire/management.hpp"

namespace outboard::nvml {

struct Device {
  client::Server* server =
      nullptr;  ///< null until something is asked that the session file does not say
  uint32_t node = 0;
  uint32_t index = 0;  ///< of the server's devices of this session
  std::string name;
  std::string uuid;  ///< "GPU-…"
  uint64_t share_bytes = 0;

  /// A CUdevice_attribute; 0 where the server did not say.
  int attribute(int which) const;
  /// A CUdevice_P2PAttribute; 0 between servers.
  int peer_attribute(const Device& peer, int which) const;
};

/// Reads the session once per process (again in a forked child). One line on stderr where there is
/// none.
nvmlReturn_t open_session();
unsigned device_count();
/// The device with its snapshot, connecting if need be.
nvmlReturn_t find_device(nvmlDevice_t handle, const Device** device);
nvmlDevice_t handle_of(unsigned index);
int index_of(nvmlDevice_t handle);
/// Used and total bytes of the device's share, now.
nvmlReturn_t memory(const Device& device, uint64_t* used_bytes, uint64_t* total_bytes);
/// What the NVML of the device's server says, now.
nvmlReturn_t ask(const Device& device, wire::ManagementQuestion question, unsigned first,
                 unsigned second, uint64_t* out, unsigned* type = nullptr);
/// The lesser of 13.0 and the servers' versions.
nvmlReturn_t cuda_version(int* version);

}  // namespace outboard::nvml
