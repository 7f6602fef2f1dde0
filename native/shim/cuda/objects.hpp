// What the program's handles point at: contexts, streams, events, modules, kernels, pools.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/sha256.hpp"
#include "client/progress.hpp"
#include "client/server.hpp"
#include "client/slab.hpp"
#include "shim/cuda/graphs.hpp"
#include "wire/interprocess.hpp"
#include "wire/tiles.hpp"

namespace outboard::shim {

struct Capture;
struct Device;
struct Function;
struct GreenContext;
struct Stream;
struct TextureReference;

inline constexpr int limit_count = CU_LIMIT_MAX;
inline constexpr int function_attribute_count = CU_FUNC_ATTRIBUTE_MAX;

/// Streams of ours, made when they are needed, for what concerns all streams of a context.
struct WholeContext {
  std::atomic<Stream*> gather{nullptr};  ///< comes after all of them where they are recorded
  std::atomic<Stream*> gate{nullptr};    ///< waits for what those to come have to wait for
};

/// A CUcontext. Runtimes before CUDA 12 read through the handle: what it points at is zero for 4
/// KiB.
struct Context {
  std::byte zeros[4096] = {};
  client::SlotHead head;
  client::Server* server = nullptr;
  Device* device = nullptr;
  Stream* legacy = nullptr;
  /// 0: nothing to say. Else report() looks which of the next three it is.
  std::atomic<uint32_t> trouble{0};
  std::atomic<int> sticky{0};   ///< the error that killed the context
  std::atomic<int> pending{0};  ///< a late refusal that the next call returns, once
  std::atomic<bool> destroyed{false};
  std::atomic<int> usage{1};  ///< of cuCtxAttach and cuCtxDetach
  bool primary = false;
  unsigned flags = 0;
  unsigned api_version = 3020;
  uint64_t context_id = 0;
  int least_priority = 0;
  int greatest_priority = 0;
  std::array<std::atomic<uint64_t>, limit_count> limits{};
  /// The latest plain copy to the device that returned before it was done (waiting.hpp): its stream
  /// and that stream's count with it; 0: none.
  std::atomic<Stream*> upload_stream{nullptr};
  std::atomic<uint64_t> upload_count{0};
  /// A stream of ours, beside all of the program's; made when it is needed.
  std::atomic<Stream*> side{nullptr};
  WholeContext whole;
};

/// A part of a device that streams run on. All else it has from its context, the device's primary
/// one. The CUcontext points at the beginning, the CUgreenCtx at the head.
struct GreenContext {
  std::byte zeros[4096] = {};
  client::SlotHead head;
  Context* context = nullptr;
  Stream* legacy = nullptr;
  uint64_t number = 0;
  std::atomic<bool> destroyed{false};
  WholeContext whole;
};

/// A CUdevResourceDesc; the program has no way to end one.
struct ResourceDescriptor {
  client::SlotHead head;
  Device* device = nullptr;
  uint64_t number = 0;  ///< of the server's
};

struct Stream {
  client::SlotHead head;
  Context* context = nullptr;
  GreenContext* green = nullptr;  ///< that it is of, a part of the context; null nearly always
  client::StreamProgress progress;
  /// The capture that the stream is part of; null nearly always. Changed under the captures' lock.
  std::atomic<Capture*> capture{nullptr};
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;
  bool per_thread = false;
  std::array<CUlaunchAttributeValue, CU_LAUNCH_ATTRIBUTE_MAX> attributes{};
};

struct Event {
  /// What the latest record says of the commands before it. A node of a graph records when it runs:
  /// until then the driver answers for the launch before.
  enum class Origin : uint8_t { stream, graph, graph_with_copies };

  client::SlotHead head;
  Context* context = nullptr;
  unsigned flags = 0;
  /// The latest record: on which stream, and that stream's count with it. 0: never, or known done.
  std::atomic<uint64_t> stream{0};
  std::atomic<uint64_t> count{0};
  std::atomic<Origin> origin{Origin::stream};
  std::atomic<bool> recorded{false};
  /// Recorded inside a capture: which (0: not), and what lay before it there. Under the captures'
  /// lock.
  std::atomic<uint64_t> capture{0};
  std::vector<uint64_t> clock;

  /// Other processes may record it too: only the driver knows what it says.
  bool interprocess() const { return (flags & CU_EVENT_INTERPROCESS) != 0; }
};

/// A module's variable on the device.
struct Global {
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool managed = false;
};

/// A CUmodule or a CUlibrary; the module that cuLibraryGetModule gives is the library itself, or
/// its instance.
struct Module {
  client::SlotHead head;
  client::Server* server = nullptr;
  Context* context = nullptr;  ///< null: a library
  /// The context that the server loaded it in. Libraries outlive contexts: when that one ends the
  /// library is dormant, and loaded again by its hash when it is used.
  Context* home = nullptr;
  /// Of a library that is used in another context than its home, which may be on another server: a
  /// module there for each, with variables of its own. Under the mutex.
  std::map<const Context*, Module*> instances;
  Module* library = nullptr;  ///< of such an instance
  Digest hash{};
  int capability = 0;           ///< of the device that `hash` was packed for, 90 for 9.0
  const void* image = nullptr;  ///< the program's, where it promised to keep it
  /// Where it did not, and another server may need it: a copy of the image's parts.
  std::vector<std::vector<std::byte>> parts;
  uint32_t kernels = 0;
  std::mutex mutex;
  std::map<std::string, Function*, std::less<>> functions;
  std::map<std::string, Global, std::less<>> globals;
  std::map<std::pair<bool, std::string>, TextureReference*> references;  ///< surface or not, name
};

/// A CUfunction or a CUkernel: programs pass one where the other is meant.
struct Function {
  struct Parameter {
    uint32_t offset;
    uint32_t bytes;
  };
  client::SlotHead head;
  Module* module = nullptr;
  uint32_t parameter_count = 0;
  uint32_t parameters_bytes = 0;
  std::unique_ptr<Parameter[]> parameters;
  std::array<std::atomic<int>, function_attribute_count> attributes{};
  std::string name;
  std::mutex mutex;
  /// Occupancy answers by their arguments; cleared when an attribute changes.
  std::map<std::array<uint64_t, 5>, std::pair<int64_t, int64_t>> occupancy;
};

/// A pool is a count of what the program has from it: the memory of all of them comes from one
/// place, and goes back there when it is free.
struct Pool {
  client::SlotHead head;
  Device* device = nullptr;
  uint64_t max_bytes = 0;  ///< 0: as much as there is
  bool is_default = false;
  bool shareable = false;
  /// Of a pool of another process: the handle that it was imported by.
  std::optional<wire::InterprocessHandle> origin;
  std::atomic<bool> destroyed{false};  ///< goes when the last of its memory does
  std::atomic<uint64_t> release_threshold{0};
  std::atomic<int> reuse_follow_event{1}, reuse_opportunistic{1}, reuse_internal{1};
  std::atomic<uint64_t> used{0}, used_high{0};
  std::set<CUdevice> viewers;  ///< that its memory is open to; under the device's mutex
};

/// A CUmemGenericAllocationHandle. It lives while the program has a handle of it or a mapping.
/// Under the lock of virtual memory.
struct PhysicalMemory {
  client::SlotHead head;
  Device* device = nullptr;
  CUmemAllocationProp properties{};
  uint64_t bytes = 0;
  unsigned handles = 0;
  unsigned mappings = 0;
};

/// A CUarray. A part (a plane, a level) goes with the whole that it is of.
struct Array {
  client::SlotHead head;
  Context* context = nullptr;
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  const void* whole = nullptr;
  wire::TileGrid tiles;  ///< where the program maps its memory
  CUDA_ARRAY_SPARSE_PROPERTIES properties{};
};

struct MipmappedArray {
  client::SlotHead head;
  Context* context = nullptr;
  unsigned levels = 0;
  wire::TileGrid tiles;  ///< where the program maps its memory
  CUDA_ARRAY_SPARSE_PROPERTIES properties{};
  std::mutex mutex;
  std::map<unsigned, Array*> parts;  ///< levels that were asked for
};

/// A CUtexref or a CUsurfref: of a module, or of none. The driver has what it is bound to.
struct TextureReference {
  client::SlotHead head;
  Context* context = nullptr;
  Module* module = nullptr;
  bool surface = false;
};

extern client::Slab<Context, 2048> contexts;
extern client::Slab<GreenContext, 1u << 16> green_contexts;
extern client::Slab<ResourceDescriptor, 1u << 16> resource_descriptors;
extern client::Slab<Stream, 1u << 17> streams;
extern client::Slab<Event, 1u << 20> events;
extern client::Slab<Module, 1u << 17> modules;
extern client::Slab<Function, 1u << 20> functions;
extern client::Slab<Pool, 1024> pools;
extern client::Slab<PhysicalMemory, 1u << 20> physical_memories;
extern client::Slab<Array, 1u << 20> arrays;
extern client::Slab<MipmappedArray, 1u << 17> mipmapped_arrays;
extern client::Slab<TextureReference, 1u << 20> texture_references;

inline CUcontext handle(Context* object) { return reinterpret_cast<CUcontext>(object); }
inline CUcontext converted(GreenContext* object) { return reinterpret_cast<CUcontext>(object); }
inline CUgreenCtx handle(GreenContext* object) {
  return reinterpret_cast<CUgreenCtx>(object == nullptr ? nullptr : &object->head);
}
inline CUstream handle(Stream* object) { return reinterpret_cast<CUstream>(object); }
inline CUevent handle(Event* object) { return reinterpret_cast<CUevent>(object); }
inline CUmemoryPool handle(Pool* object) { return reinterpret_cast<CUmemoryPool>(object); }

inline GreenContext* find(CUgreenCtx value) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(value) - offsetof(GreenContext, head);
  return green_contexts.find(reinterpret_cast<const void*>(address));
}
/// Of a green context's CUcontext the context that it is a part of.
inline Context* find(CUcontext value) {
  Context* context = contexts.find(value);
  if (context != nullptr) [[likely]]
    return context;
  const GreenContext* green = green_contexts.find(value);
  return green != nullptr && !green->destroyed.load() ? green->context : nullptr;
}
inline Event* find(CUevent value) { return events.find(value); }
inline Pool* find(CUmemoryPool value) {
  Pool* pool = pools.find(value);
  return pool != nullptr && !pool->destroyed.load() ? pool : nullptr;
}

inline Array* find(CUarray value) { return arrays.find(value); }
inline MipmappedArray* find(CUmipmappedArray value) { return mipmapped_arrays.find(value); }

inline TextureReference* find(CUtexref value) {
  TextureReference* reference = texture_references.find(value);
  return reference != nullptr && !reference->surface ? reference : nullptr;
}
inline TextureReference* find(CUsurfref value) {
  TextureReference* reference = texture_references.find(value);
  return reference != nullptr && reference->surface ? reference : nullptr;
}

inline CUresult to_cuda(client::Result result) { return static_cast<CUresult>(result); }

}  // namespace outboard::shim
