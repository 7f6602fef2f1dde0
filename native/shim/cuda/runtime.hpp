// The process's devices and servers, and the current context of each thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "client/process.hpp"
#include "client/server.hpp"
#include "shim/cuda/objects.hpp"

namespace outboard::shim {

inline constexpr int max_devices = 256;
inline constexpr int attribute_count = CU_DEVICE_ATTRIBUTE_MAX;

/// One device as the program sees it (after CUDA_VISIBLE_DEVICES).
struct Device {
  int ordinal = 0;
  client::Server* server = nullptr;
  uint32_t index = 0;  ///< of the server's devices of this session
  const client::DeviceSnapshot* snapshot = nullptr;
  std::array<int, attribute_count> attributes{};
  std::mutex mutex;  ///< guards the rest: the primary context's state, the pool
  Context* primary = nullptr;
  Context* ended = nullptr;  ///< for the streams that green contexts left behind
  unsigned retained = 0;
  std::atomic<bool> active{false};
  std::atomic<unsigned> primary_flags{0};
  std::atomic<uint64_t> graph_memory{0}, graph_memory_high{0};  ///< bytes that graphs hold
  Pool* pool = nullptr;          ///< the default one; null until it is asked for
  Pool* current_pool = nullptr;  ///< null: the default one
  std::atomic<uint64_t> granularity[2] =
      {};  ///< of physical memory, minimum and recommended; 0: ask

  int attribute(CUdevice_attribute which) const { return attributes[which]; }
};

/// The devices; filled once by start() and constant afterwards.
extern Device* devices[max_devices];

/// Whether kernels on `device` can be let reach the memory of `peer`.
bool reaches(const Device& device, const Device& peer);

extern int device_count;
extern bool software_gpu;
/// What cuDriverGetVersion says: the lesser of 13.0 and the oldest server's.
extern int advertised_version;

/// cuInit. Reads the session, connects, fills the devices.
CUresult start();

inline Device* find_device(CUdevice ordinal) {
  return ordinal >= 0 && ordinal < device_count ? devices[ordinal] : nullptr;
}

/// The device's primary context, made if need be; neither retained nor made current.
CUresult primary_context(Device* device, Context** out);
CUresult retain_primary(Device* device, Context** out);
CUresult release_primary(Device* device);
/// A fresh context's shared parts: the server's answer, its legacy stream.
CUresult open_context(Context* context, Device* device, unsigned flags);
/// Ends it on the server and everything that belongs to it here.
CUresult close_context(Context* context, bool reset);

// ---- threads
// ---------------------------------------------------------------------------------------

struct PerThreadStream {
  uint64_t context = 0;  ///< id
  uint64_t green = 0;    ///< id
  Stream* stream = nullptr;
};

struct CurrentContext {
  Context* context = nullptr;
  GreenContext* green = nullptr;
};

/// What each thread has of its own. Constant-initialised, nothing to destroy: it is also read at
/// exit.
struct ThreadState {
  Context* current = nullptr;
  GreenContext* green = nullptr;  ///< the part of it that is current; null nearly always
  CurrentContext below[31] = {};  ///< what cuCtxPopCurrent returns to
  uint32_t depth = 0;
  CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  uint32_t in_callback = 0;  ///< host functions may not call CUDA
  PerThreadStream per_thread[8] = {};
};

extern thread_local constinit ThreadState thread_state;

// ---- modules, where the thread is
// -------------------------------------------------------------------------------------

/// What a library, or a kernel of one, is in a context: loaded there if need be. Of anything else
/// the object itself. Null where there is none.
Module* module_in(const void* value, Context* context);
Function* function_in(const void* value, Context* context);

inline Module* find(CUmodule value) {
  Module* module = modules.find(value);
  return module != nullptr && module->home == thread_state.current
             ? module
             : module_in(value, thread_state.current);
}
inline Function* find(CUfunction value) {
  Function* function = functions.find(value);
  return function != nullptr && function->module->home == thread_state.current
             ? function
             : function_in(value, thread_state.current);
}
/// Programs pass one where the other is meant.
inline Module* find(CUlibrary value) { return find(reinterpret_cast<CUmodule>(value)); }
inline Function* find(CUkernel value) { return find(reinterpret_cast<CUfunction>(value)); }

/// The default stream where the context, or a part of it, is current; else the context's own.
inline Stream* legacy_stream(Context* context) {
  const GreenContext* green = thread_state.green;
  return green != nullptr && green->context == context ? green->legacy : context->legacy;
}
/// The stream that CU_STREAM_PER_THREAD means for this thread in this context; null: no room.
Stream* per_thread_stream(Context* context);
/// A stream of ours that no work of the program's is ordered with; null: no room.
Stream* side_stream(Context* context);

}  // namespace outboard::shim
