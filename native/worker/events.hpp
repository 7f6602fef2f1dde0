// Events and their records, each record with a driver event of its own while somebody refers to it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>

namespace outboard::worker {

struct Context;
struct Stream;

/// One capture in progress, shared by the streams that joined it.
struct Capture {
  Stream* origin = nullptr;
};

/// One EventRecord command. A wait refers to the record that was the latest when the wait came, so
/// an event that is recorded again while a backlogged wait still means the earlier record gets
/// another driver event: no record ever has to wait for waits.
struct Record {
  ~Record();
  std::shared_ptr<Context> context;
  CUevent handle = nullptr;
  bool issued = false;
  std::weak_ptr<Stream> stream;  ///< where, and
  uint64_t position = 0;  ///< how many of that stream's commands are done once it is complete
  std::shared_ptr<Capture> capture;
};

struct Event {
  ~Event();
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  CUevent spare = nullptr;         ///< made at creation, for the first record
  std::shared_ptr<Record> latest;  ///< null: never recorded
};

class Worker;

/// The record that an EventRecord command which has just come will make: the latest one where
/// nobody refers to it any more, else a new one.
std::shared_ptr<Record> next_record(Worker& worker, Event& event);

}  // namespace outboard::worker
