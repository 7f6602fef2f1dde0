// A stream of the driver: its counts, its markers, what waits for it, and its buffers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "worker/backlog.hpp"
#include "worker/bulk.hpp"
#include "worker/events.hpp"
#include "worker/staging.hpp"

namespace outboard::worker {

struct Context;
struct GraphRun;
struct PhysicalMemory;
struct GreenContext;

/// What happens once a stream got somewhere: CUDA_SUCCESS, or the error that killed its context.
using Action = std::function<void(CUresult)>;

/// A command that is kept in the worker, or a place among them.
struct Item {
  std::vector<std::byte> command;  ///< wire header and payload
  std::shared_ptr<Record> record;  ///< what an EventRecord makes or a StreamWaitEvent waits for
  std::shared_ptr<GraphRun> run;   ///< what a GraphLaunch launches
  /// What an ArrayMap gives to tiles, by mapping: the client may release it meanwhile.
  std::vector<std::shared_ptr<PhysicalMemory>> memories;
  Action mark;         ///< not a command: waits for all that came before
  bool begun = false;  ///< a bulk copy of which pieces are still to be issued
};

using StreamBacklog = Backlog<Item>;

struct Stream : std::enable_shared_from_this<Stream> {
  Stream(Context* owner, StreamKind kind, std::shared_ptr<GreenContext> part)
      : context(owner), green(std::move(part)), kind(kind), queue(kind, green.get()) {}

  uint64_t id = 0;
  Context* context;
  std::shared_ptr<GreenContext> green;  ///< that it is of; null nearly always
  CUstream handle = nullptr;
  StreamKind kind;
  StreamBacklog::Queue queue;
  bool destroyed = false;            ///< out of the table; goes when its work is done
  bool gone = false;                 ///< out of everything
  std::shared_ptr<Capture> capture;  ///< set while its commands go into a graph

  // Commands ordered on this stream, counted as docs/internals/wire.md §4 says.
  uint64_t issued = 0;
  uint64_t completed = 0;
  uint64_t reported = 0;

  // Operations in the driver, for the limit on what is outstanding.
  uint64_t operations = 0;
  uint64_t operations_done = 0;
  uint64_t operations_marked = 0;

  /// The stream writes a marker's number into its progress word once all before it is done.
  struct Marker {
    uint32_t number;
    uint64_t position;
    uint64_t operations;
  };
  struct Waiter {
    uint32_t number;
    Action action;
  };
  Words words;
  uint32_t last_marker = 0;
  bool dirty = false;          ///< work was issued after the last marker
  bool active = false;         ///< in the list of streams that are polled
  bool advanced = false;       ///< in the list of streams that have progress to report
  bool pumping = false;        ///< in the list of streams that have a backlog
  std::deque<Marker> markers;  ///< not reached yet
  std::deque<Waiter> waiters;  ///< in the order of their markers

  uint32_t host_functions = 0;  ///< ever issued: the value that releases the last one
  std::unique_ptr<StagingRing> staging;
  std::shared_ptr<UploadRing> upload;
  std::shared_ptr<DownloadRing> download;
  std::unique_ptr<BulkCopy> copying;  ///< the bulk copy at the head of the queue

  /// The command that is being issued is not in the driver yet.
  bool before_command = false;
  /// How many commands are done once all work that is in the driver now is done.
  uint64_t position() const { return copying || before_command ? issued - 1 : issued; }
};

}  // namespace outboard::worker
