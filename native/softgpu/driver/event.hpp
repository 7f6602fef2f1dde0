// Events.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "handles.hpp"
#include "operation.hpp"

namespace softgpu {

class Capture;
struct GraphNode;

struct Event {
  std::weak_ptr<Context> context;
  unsigned flags = 0;
  CUevent handle = nullptr;
  std::mutex mutex;
  std::shared_ptr<SharedEvent> shared;  ///< of an event that other processes may know
  std::shared_ptr<Record> record;  ///< the latest; null: never recorded, which counts as complete

  /// Set when the latest record was captured; guarded by capture_mutex().
  std::weak_ptr<Capture> capture;
  std::vector<GraphNode*> capture_nodes;

  std::shared_ptr<Record> latest() {
    std::lock_guard lock(mutex);
    if (!shared) return record;
    uint64_t number = shared->latest();
    return number == 0 ? nullptr : std::make_shared<Record>(shared, number);
  }
  /// Begins a new recording.
  std::shared_ptr<Record> renew() {
    std::lock_guard lock(mutex);
    record = shared ? std::make_shared<Record>(shared, shared->begin_record())
                    : std::make_shared<Record>();
    return record;
  }
};

HandleTable<Event, CUevent, 3>& events();

}  // namespace softgpu
