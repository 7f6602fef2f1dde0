// A stand-in for the shim's side of a connection: commands go to the test's worker at once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "generated/commands.hpp"

namespace outboard::shim {

struct Target {
  int entered = 0;
};

// Runs one command and leaves the encoded reply; false: the worker could not decode it.
using Carrier = std::function<bool(wire::Op, std::span<const std::byte> payload, CUresult* result,
                                   std::vector<uint64_t>* reply)>;
inline Carrier carrier;
inline CUresult enter_result = CUDA_SUCCESS;

inline CUresult enter() { return enter_result; }
inline CUresult enter(Target* target) {
  target->entered = 1;
  return enter_result;
}
inline CUresult enter(Target* target, CUdevice device, uint32_t* index) {
  *index = static_cast<uint32_t>(device) + 10;
  return enter(target);
}
template <typename Handle>
CUresult to_wire(Handle handle, uint64_t* id) {
  if (handle == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *id = reinterpret_cast<uintptr_t>(handle) + 1;
  return CUDA_SUCCESS;
}

template <typename Command>
struct Answer {
  CUresult result = CUDA_ERROR_UNKNOWN;
  typename Command::Reply reply;
  std::vector<uint64_t> bytes;
};

template <typename Command>
bool carry(const Command& command, CUresult* result, std::vector<uint64_t>* reply) {
  std::vector<uint64_t> words(command.encoded_bytes() / 8);
  wire::Writer writer(reinterpret_cast<std::byte*>(words.data()));
  command.encode(writer);
  return carrier(Command::op, std::as_bytes(std::span(words)), result, reply);
}

template <typename Command>
CUresult send(const Target&, const Command& command) {
  CUresult result = CUDA_SUCCESS;
  std::vector<uint64_t> reply;
  return carry(command, &result, &reply) ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
}

template <typename Command>
Answer<Command> call(const Target&, const Command& command) {
  Answer<Command> answer;
  if (!carry(command, &answer.result, &answer.bytes)) return answer;
  wire::Reader reader(std::as_bytes(std::span(answer.bytes)));
  if (!answer.reply.decode(reader)) answer.result = CUDA_ERROR_UNKNOWN;
  return answer;
}

}  // namespace outboard::shim
