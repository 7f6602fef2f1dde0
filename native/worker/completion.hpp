// Knowing what is done without waiting in the driver: words that streams write, and who waits for
// them. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "worker/contexts.hpp"

namespace outboard::worker {

class Worker;

class Completion {
 public:
  explicit Completion(Worker& worker) : worker_(worker) {}

  /// Has the stream write the number of a new marker once all work that it has now is done; nothing
  /// to do where the last marker covers all of it.
  CUresult mark(Stream& stream);
  /// Runs `action` once all commands issued on the stream are done; at once where they are.
  void when_done(Stream& stream, Action action);
  /// Runs `action` once the stream has written this marker's number.
  void when_reached(Stream& stream, uint32_t marker, Action action);
  /// Runs `action` once all commands that have come for the context's streams are done, or for
  /// those of one of its green contexts.
  void when_done(Context& context, Action action, const GreenContext* only = nullptr);
  /// Runs `action` once the record is complete.
  void when_recorded(std::shared_ptr<Record> record, Action action);
  /// The driver's answer for a record now; raises what is known of its stream.
  CUresult query(const Record& record);
  /// Runs `action`, not before `condition` is true; for what another thread brings about.
  void when(std::function<bool()> condition, Action action);

  /// Reads the stream's word and runs what it makes due.
  void poll(Stream& stream);
  /// Polls everything that somebody waits for. True if anything moved.
  bool poll();
  /// Asks the driver about every stream that is waited for, so that a fault is noticed.
  void check_for_faults();
  /// Whether anything is waited for that no descriptor announces.
  bool waiting() const { return waiters_ != 0 || !records_.empty() || !conditions_.empty(); }
  uint64_t moves() const { return moves_; }

  /// Sends `progress` for every stream of which more is known than the client was told.
  void report();
  /// Answers everything that waits for the context with the error that killed it.
  void fail(Context& context, CUresult result);
  /// The stream is going: it is in no list any more. What still waits for it is the caller's to
  /// run.
  [[nodiscard]] std::vector<Action> forget(Stream& stream);

 private:
  struct PendingRecord {
    std::shared_ptr<Record> record;
    Action action;
  };
  struct Condition {
    std::function<bool()> holds;
    Action action;
  };
  void activate(Stream& stream);
  void advance(Stream& stream, uint64_t completed);
  void reach(Stream& stream, uint32_t word, uint32_t up_to);
  void poll_records();
  void poll_conditions();

  Worker& worker_;
  std::vector<Stream*> active_;    ///< with markers that are not reached
  std::vector<Stream*> advanced_;  ///< with progress to report
  std::vector<PendingRecord> records_;
  std::vector<Condition> conditions_;
  size_t waiters_ = 0;
  uint64_t moves_ = 0;
};

}  // namespace outboard::worker
