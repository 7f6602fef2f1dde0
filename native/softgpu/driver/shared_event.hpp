// What several processes know of one event: a page that all of them map.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace softgpu {

/// Records are numbered over all processes; one that is complete stands for those before it.
class SharedEvent {
 public:
  /// A new one; null where the system has no memory for it.
  static std::shared_ptr<SharedEvent> make();
  /// The one behind a descriptor, which is this object's from now on; null where it is none.
  static std::shared_ptr<SharedEvent> open(int fd);
  ~SharedEvent();
  SharedEvent(const SharedEvent&) = delete;
  SharedEvent& operator=(const SharedEvent&) = delete;

  int fd() const { return fd_; }
  /// The latest record's number; 0: never recorded.
  uint64_t latest() const { return page_->latest.load(); }
  uint64_t begin_record();
  void complete(uint64_t number);
  bool done(uint64_t number) const { return page_->done.load() >= number; }
  /// The process that recorded last is gone: what it recorded will never be complete.
  bool abandoned() const;

 private:
  struct Page {
    std::atomic<uint64_t> latest;
    std::atomic<uint64_t> done;
    std::atomic<int> process;
  };
  SharedEvent(int fd, Page* page) : fd_(fd), page_(page) {}

  int fd_;
  Page* page_;
};

}  // namespace softgpu
