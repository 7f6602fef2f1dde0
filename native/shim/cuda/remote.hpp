// What the generated bodies build on: the target of a call, sending, handles by their ids.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "shim/cuda/guard.hpp"

namespace outboard::shim {

/// Which server executes, and in which context (its index; 0: none).
struct Target {
  client::Server* server = nullptr;
  uint32_t context = 0;
};

inline CUresult enter(Target* target) {
  Context* context = nullptr;
  const CUresult result = enter(&context);
  if (result == CUDA_SUCCESS) *target = {context->server, context->head.index};
  return result;
}

/// For functions that name a device and need no context; `index` is the device's on its server.
inline CUresult enter(Target* target, CUdevice ordinal, uint32_t* index) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Device* device = find_device(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *target = {device->server, 0};
  *index = device->index;
  return CUDA_SUCCESS;
}

/// An answer that converts to what the generated bodies read: `.result` is CUDA's.
template <typename Command>
struct Answer {
  CUresult result;
  client::Answer<Command> answer;
  typename Command::Reply& reply;

  Answer(const Target& target, const Command& command) : reply(answer.reply) {
    target.server->connection().call(command, target.context, &answer);
    result = to_cuda(answer.result);
  }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
};

template <typename Command>
CUresult send(const Target& target, const Command& command) {
  return to_cuda(target.server->connection().send(command, target.context));
}

template <typename Command>
Answer<Command> call(const Target& target, const Command& command) {
  return Answer<Command>(target, command);
}

template <typename Handle>
CUresult to_wire(Handle value, uint64_t* id) {
  const auto* object = find(value);
  if (object == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *id = object->head.id();
  return CUDA_SUCCESS;
}

inline CUresult to_wire(CUcontext value, uint64_t* id) {
  const Context* context = value == nullptr ? thread_state.current : find(value);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *id = context->head.id();
  return CUDA_SUCCESS;
}

inline CUresult to_wire(CUstream value, uint64_t* id) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  const CUresult result = enter(value, &context, &stream);
  if (result == CUDA_SUCCESS) *id = stream->head.id();
  return result;
}

}  // namespace outboard::shim
