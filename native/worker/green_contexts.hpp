// Green contexts of the driver, and the parts of devices that they are made of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace outboard::worker {

struct Context;
struct Stream;
class Worker;

/// Its streams are among its context's, the device's primary one, whose memory and modules it has.
struct GreenContext {
  uint64_t id = 0;
  Context* context = nullptr;
  CUgreenCtx handle = nullptr;
  CUcontext current = nullptr;     ///< what makes it current
  std::shared_ptr<Stream> legacy;  ///< its default stream
};

/// What the client knows by a number. The driver trusts the bytes of its structures, so the client
/// never has them; equal ones have one number.
class DeviceResources {
 public:
  /// 0: there are too many.
  uint64_t number(const CUdevResource& resource);
  const CUdevResource* find(uint64_t number) const;
  uint64_t add(CUdevResourceDesc descriptor);
  CUdevResourceDesc find_descriptor(uint64_t number) const;

 private:
  std::vector<CUdevResource> resources_;
  std::map<std::string, uint64_t> numbers_;     ///< by their bytes
  std::vector<CUdevResourceDesc> descriptors_;  ///< the driver never ends one
};

/// Ends it with its streams; nothing of it may be running unless its context is dead.
void end_green_context(Worker& worker, GreenContext& green);

}  // namespace outboard::worker
