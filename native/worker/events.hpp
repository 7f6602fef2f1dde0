// Events and their records, each record with a driver event of its own while somebody refers to it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>

#include "wire/interprocess.hpp"

namespace outboard::worker {

struct Context;
struct Graph;
struct Stream;

/// One capture in progress, shared by the streams that joined it.
struct Capture {
  Stream* origin = nullptr;
  std::shared_ptr<Graph> graph;  ///< that it makes
  bool into = false;  ///< the client's own graph, which stays whatever becomes of the capture
};

/// An event of the driver, which goes with the last record that uses it.
struct DriverEvent {
  /// `handle` is null where the driver has no more events.
  DriverEvent(std::shared_ptr<Context> owner, unsigned flags);
  DriverEvent(std::shared_ptr<Context> owner, CUevent made)
      : context(std::move(owner)), handle(made) {}
  ~DriverEvent();
  DriverEvent(const DriverEvent&) = delete;
  DriverEvent& operator=(const DriverEvent&) = delete;

  std::shared_ptr<Context> context;
  CUevent handle = nullptr;
};

/// One EventRecord command. A wait refers to the record that was the latest when the wait came, so
/// an event that is recorded again while a backlogged wait still means the earlier record gets
/// another driver event: no record ever has to wait for waits.
struct Record {
  std::shared_ptr<Context> context;
  std::shared_ptr<DriverEvent> event;
  bool issued = false;
  std::weak_ptr<Stream> stream;  ///< where, and
  uint64_t position = 0;  ///< how many of that stream's commands are done once it is complete
  std::shared_ptr<Capture> capture;
  bool interprocess = false;  ///< another process may have recorded the event since

  CUevent handle() const { return event->handle; }
};

struct Event {
  uint64_t id = 0;
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  std::shared_ptr<DriverEvent> spare;  ///< made at creation, for the first record
  std::shared_ptr<Record> latest;      ///< null: never recorded
  /// Named by a node of a graph, or known to other processes, which the driver knows by one handle:
  /// all records use this one.
  std::shared_ptr<DriverEvent> pinned;
  wire::Token token{};  ///< by which other workers may ask for it; zeros: none yet

  bool interprocess() const { return (flags & CU_EVENT_INTERPROCESS) != 0; }
};

/// An event that `made` will be its first record's; of one between processes, all records'.
std::shared_ptr<Event> make_event(std::shared_ptr<Context> context, uint64_t id, unsigned flags,
                                  std::shared_ptr<DriverEvent> made);

class Worker;

/// The record that an EventRecord command which has just come will make: the latest one where
/// nobody refers to it any more, else a new one.
std::shared_ptr<Record> next_record(Worker& worker, Event& event);
/// The one driver event that the event is from now on; null where there is none.
std::shared_ptr<DriverEvent> pin(Worker& worker, Event& event);

}  // namespace outboard::worker
