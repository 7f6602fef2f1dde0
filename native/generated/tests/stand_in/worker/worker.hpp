// A stand-in for the worker: a driver table that the test fills, and the last reply.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <vector>

#include "generated/commands.hpp"
#include "generated/driver_table.hpp"

namespace outboard::worker {

struct Request {
  uint32_t number = 0;
};

class Worker {
 public:
  template <typename Reply>
  void reply(const Request&, CUresult answered, const Reply& message) {
    result = answered;
    bytes.assign(message.encoded_bytes() / 8, 0);
    wire::Writer writer(reinterpret_cast<std::byte*>(bytes.data()));
    message.encode(writer);
  }
  void refused(const Request&, wire::Op, CUresult answered) { result = answered; }
  const Driver& driver() const { return table; }

  template <typename Handle>
  CUresult find(uint64_t id, Handle* out) const {
    *out = reinterpret_cast<Handle>(id + 1000);
    return id == 0 ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  }
  CUresult find_device(uint32_t index, CUdevice* out) const {
    *out = static_cast<CUdevice>(index) + 100;
    return CUDA_SUCCESS;
  }

  Driver table;
  CUresult result = CUDA_SUCCESS;
  std::vector<uint64_t> bytes;
};

}  // namespace outboard::worker
