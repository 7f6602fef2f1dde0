// The operations that streams and graphs are made of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <variant>
#include <vector>

#include "../engine/engine.hpp"
#include "../engine/tiles.hpp"
#include "api.hpp"
#include "shared_event.hpp"

namespace softgpu {

class Context;
class Device;
class Function;
class GraphExec;
class Stream;

/// One recording of an event: done once the stream has come to it.
struct Record {
  Record() = default;
  Record(std::shared_ptr<SharedEvent> event, uint64_t count)
      : shared(std::move(event)), number(count) {}

  const std::shared_ptr<SharedEvent> shared;  ///< of an event that other processes may know
  const uint64_t number = 0;                  ///< among its records
  std::atomic<uint32_t> done{0};
  std::atomic<int64_t> time_ns{0};  ///< valid once done
  std::atomic<int> waiters{0};

  void complete();
  bool is_done() const { return shared ? shared->done(number) : done.load() != 0; }
  /// Returns once done, or when `context` is dead.
  void wait(const Context& context);

 private:
  void wait_shared(const Context& context) const;
};

struct KernelOperation {
  std::shared_ptr<Function> function;
  Launch launch;  ///< `params` is set when it runs
  std::vector<std::byte> params;
  /// What the references that the kernel names were bound to at the launch.
  BoundReferences references;
};

/// A copy of up to three dimensions, all in bytes; rows and slices are `pitch` and `slice` apart.
struct CopyOperation {
  uint64_t destination = 0;
  uint64_t source = 0;
  size_t destination_pitch = 0, source_pitch = 0;
  size_t destination_slice = 0, source_slice = 0;
  size_t width = 0, height = 1, depth = 1;
  Device* destination_device = nullptr;  ///< whose memory it is; null for host memory
  Device* source_device = nullptr;
  std::shared_ptr<std::vector<std::byte>> snapshot;  ///< where `source` points, if kept here
  /// An end of which memory may be missing, and where in it the copy begins: bytes, row, slice.
  struct TiledEnd {
    std::shared_ptr<const TiledLevel> level;
    std::array<uint64_t, 3> at{};
  };
  TiledEnd tiled_destination, tiled_source;
  size_t bytes() const { return width * height * depth; }
};

struct MemsetOperation {
  uint64_t destination = 0;
  size_t pitch = 0;
  uint32_t value = 0;
  uint32_t element_bytes = 1;
  size_t width = 0;  ///< in elements
  size_t height = 1;
  Device* device = nullptr;  ///< null for pinned host memory
};

struct HostOperation {
  CUhostFn function = nullptr;
  void* data = nullptr;
};

/// cuStreamAddCallback: unlike a host function it is told of errors, and runs in spite of them.
struct CallbackOperation {
  CUstreamCallback callback = nullptr;
  void* data = nullptr;
  CUstream stream = nullptr;
};

struct RecordOperation {
  std::shared_ptr<Record> record;
};

struct WaitOperation {
  std::shared_ptr<Record> record;
};

/// Waits until another stream has completed so many operations.
struct FollowOperation {
  std::shared_ptr<Stream> stream;
  uint64_t sequence = 0;
};

/// Waits for a word of memory, or writes one.
struct ValueOperation {
  bool wait = false;
  bool wide = false;  ///< 64 bits
  uint64_t address = 0;
  uint64_t value = 0;
  unsigned flags = 0;
};

struct GraphOperation {
  std::shared_ptr<GraphExec> exec;
  std::shared_ptr<void> steps;  ///< as they were when it was launched
};

/// Something that the driver does itself in stream order, such as freeing memory.
struct TaskOperation {
  std::function<void()> task;
};

using Operation = std::variant<KernelOperation, CopyOperation, MemsetOperation, HostOperation,
                               CallbackOperation, RecordOperation, WaitOperation, FollowOperation,
                               ValueOperation, GraphOperation, TaskOperation>;

/// Carries the operation out on the calling thread. An error kills the context.
CUresult execute(Operation& operation, Context& context);

/// What must be done even when the context is dead (of `error`): records complete, memory is freed.
void abandon(Operation& operation, CUresult error);

/// True for operations that are done sooner than another thread is woken.
bool trivial(const Operation& operation);

int64_t now_ns();

}  // namespace softgpu
